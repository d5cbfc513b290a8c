//! `cpus` in a description of a whole machine: the threads of its vCPUs run there, and no others.

use system_tests::processes::{own_cpus, thread_cpus};
use system_tests::{Scratch, test_kernel};

#[test]
fn type1_vcpus_run_where_they_are_pinned() {
    if !test_kernel::can_run("type1_vcpus_run_where_they_are_pinned") {
        return;
    }
    let (own, first, last) = own_cpus();
    let scratch = Scratch::new();
    let mut running = test_kernel::pinned("kvm", &scratch, &[last, first], "do=spin").spawn();
    running.expect("begin spin");
    for (name, cpus) in thread_cpus(running.pid()) {
        let expected = match &*name {
            "vCPU 0" => last.to_string(),
            "vCPU 1" => first.to_string(),
            // The kernel's own, made by whichever vCPU runs first.
            name if name.starts_with("kvm-") => continue,
            _ => own.clone(),
        };
        assert_eq!(cpus, expected, "{name}");
    }
    running.signal(15);
    running.finish().assert_ends(1, "Exiting on signal 15");
    let run = test_kernel::pinned("kvm", &scratch, &[1023], "do=list").run();
    run.assert_ends(1, "test: `cpus` names CPU 1023, which is not there: this process may use ");
}
