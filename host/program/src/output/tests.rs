use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

const NONE: [&Path; 0] = [];

fn names(folder: &Path) -> Vec<OsString> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn the_old_file_stays_until_the_new_one_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let mut output = OutputFile::create(&path, NONE).unwrap();
    io::Write::write_all(&mut output, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    output.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
fn what_is_not_finished_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    fs::write(&path, "old").unwrap();
    drop(OutputFile::create(&path, NONE).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
fn a_symbolic_link_is_refused_wherever_it_leads() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("file"), folder.path().join("link"));
    fs::write(&file, "precious").unwrap();
    symlink(&file, &link).unwrap();
    let error = write(&link, NONE, b"x").unwrap_err();
    assert!(matches!(error, OutputError::Link(_)), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    fs::remove_file(&file).unwrap();
    assert!(matches!(write(&link, NONE, b"x").unwrap_err(), OutputError::Link(_)));
    assert!(!file.exists());
}

#[test]
fn an_input_is_known_by_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("kernel"), "kernel").unwrap();
    fs::hard_link(at("kernel"), at("hard")).unwrap();
    symlink(at("kernel"), at("soft")).unwrap();
    let spelled = folder.path().join(".").join("kernel");
    for (output, input) in
        [(at("kernel"), spelled), (at("hard"), at("kernel")), (at("kernel"), at("soft"))]
    {
        let inputs = [at("nowhere"), input];
        let error = write(&output, inputs, b"x").unwrap_err();
        assert!(error.to_string().contains("also an input"), "{error}");
    }
    assert_eq!(fs::read(at("kernel")).unwrap(), b"kernel");
    assert_eq!(names(folder.path()).len(), 3);
}

#[test]
fn devices_and_pipes_are_written_to_and_never_replaced() {
    write(Path::new("/dev/null"), NONE, b"x").unwrap();
    let full = Path::new("/dev/full");
    let error = write(full, NONE, b"x").unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert!(full.exists());
    let error = OutputFile::create(full, NONE).unwrap_err();
    assert!(matches!(error, OutputError::NotAFile(_)), "{error}");
    assert!(matches!(write(Path::new("/"), NONE, b"x"), Err(OutputError::NotAFile(_))));
}

#[test]
fn a_folder_that_is_not_there_is_said_with_the_path() {
    let error = write(Path::new("/nowhere/at/all"), NONE, b"x").unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/at/all: No such file"), "{error}");
}

#[test]
fn a_name_as_long_as_names_may_be_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x".repeat(255));
    write(&path, NONE, b"x").unwrap();
    assert_eq!(names(folder.path()).len(), 1);
}
