//! `cpus` in a description of a unikernel: its process runs there, or it is refused in one line.

use system_tests::environment::{backend, manager, skip, unikernel};
use system_tests::processes::{own_cpus, thread_cpus};
use system_tests::{Scratch, Tender};

/// The manager with a unikernel that never ends, on these CPUs.
fn spinning(scratch: &Scratch, cpus: &str) -> Option<Tender> {
    let Some(manager) = manager() else {
        skip("a_unikernel_runs_where_it_is_pinned", "REDOX_VM names no VM manager");
        return None;
    };
    let text = format!(
        "[vm]\nname = \"pinned\"\nmemory = \"64M\"\ncpus = {cpus}\n\
         [vm.hvt]\nunikernel = {:?}\nargs = [\"spin\"]\n",
        unikernel("hostile")
    );
    let path = scratch.file("vm.toml", text.as_bytes());
    let backend = format!("--backend={}", backend().unwrap_or_else(|| "auto".into()));
    Some(Tender::bare().program(&manager).options(["run", &backend]).option(path))
}

#[test]
fn a_unikernel_runs_where_it_is_pinned() {
    let (_, _, last) = own_cpus();
    let scratch = Scratch::new();
    let Some(tender) = spinning(&scratch, &format!("[{last}]")) else { return };
    let mut running = tender.spawn();
    running.expect("spin");
    for (name, cpus) in thread_cpus(running.pid()) {
        assert_eq!(cpus, last.to_string(), "{name}");
    }
    running.signal(15);
    running.finish().assert_ends(1, "Exiting on signal 15");
    let Some(tender) = spinning(&scratch, "[1023]") else { return };
    let run = tender.run();
    run.assert_ends(1, "pinned: `cpus` names CPU 1023, which is not there: this process may use ");
    assert_eq!(run.stderr.lines().count(), 1, "{run:#?}");
}
