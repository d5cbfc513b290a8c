//! What a disk and a network do for their drivers.

use super::*;
use crate::modes::virtio::feature;

#[test]
fn a_disk_reads_writes_flushes_and_says_its_name() {
    let (device, bytes) = disk(false);
    let bench = bench(device);
    assert_eq!(bench.mmio(BAR + 0x2000, 8, None), 8);
    assert_eq!(bench.mmio(BAR + 0x2014, 4, None), 512);
    bench.start(feature::VERSION_1, 1);
    bench.messages();
    let data = 0x3_0000;
    assert_eq!(bench.request(0, 2, &[(data, 512, true), (data + 0x800, 512, true)]), (0, 1025));
    assert_eq!((bench.get::<2>(data), bench.get::<2>(data + 0x800)), (*b"22", *b"33"));
    assert_eq!(bench.sent_messages(), [0x41]);
    bench.put(data, &[b'x'; 1024]);
    assert_eq!(bench.request(1, 6, &[(data, 100, false), (data + 100, 924, false)]), (0, 1));
    assert_eq!(bytes.lock()[6 * 512..], [b'x'; 1024]);
    assert_eq!(bench.request(4, 0, &[]), (0, 1));
    assert_eq!(bench.request(8, 0, &[(data, 20, true)]), (0, 21));
    assert_eq!(&bench.get::<7>(data), b"disk 0\0");
    // Beyond the end, in the middle of a sector, a bad sector, an unknown request, no memory.
    assert_eq!(bench.request(0, 7, &[(data, 1024, true)]).0, 1);
    assert_eq!(bench.request(0, u64::MAX, &[(data, 512, true)]).0, 1);
    assert_eq!(bench.request(0, 1 << 55, &[(data, 512, true)]).0, 1);
    assert_eq!(bench.request(0, 0, &[(data, 100, true)]).0, 1);
    assert_eq!(bench.request(0, 1, &[(data, 512, true)]).0, 1);
    assert_eq!(bench.request(1, 1, &[(data, 512, false)]).0, 1);
    assert_eq!(bench.request(99, 0, &[]).0, 2);
    assert_eq!(bench.request(0, 0, &[(END - 100, 512, true)]).0, 1);
    assert_eq!((bench.used(0).0, bench.status()), (12, 15));
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let (device, bytes) = disk(true);
    let bench = bench(device);
    bench.start(feature::VERSION_1, 1);
    assert_eq!(bench.request(1, 0, &[(0x3_0000, 512, false)]).0, 1);
    assert_eq!(bytes.lock()[0], b'0');
    // The pin stays up until the status is read.
    assert_eq!(bench.mmio(BAR + 0x1000, 1, None), 1);
    assert_eq!(bench.mmio(BAR + 0x1000, 1, None), 0);
    assert_eq!(*bench.sink.1.lock(), [true, false]);
}

#[test]
fn frames_go_out_and_come_in() {
    let wire = Wire::default();
    let bench = bench(Arc::new(Net::new(Box::new(wire.clone()))));
    assert_eq!(bench.mmio(BAR + 0x2000, 4, None), 2);
    assert_eq!(bench.mmio(BAR + 0x200a, 2, None), 1500);
    bench.start(feature::VERSION_1, 2);
    bench.messages();
    bench.put(0x2_000c, b"a frame to send");
    bench.give(1, &[(0x2_0000, 12, false), (0x2_000c, 15, false)]);
    bench.notify(1);
    bench.give(1, &[(0x2_0000, 14, false), (0x2_000e, 4, false), (0x2_0000, 2, false)]);
    bench.notify(1);
    bench.give(1, &[(0x2_0000, 2000, false)]);
    bench.notify(1);
    assert_eq!(*wire.sent.lock(), [b"a frame to send".to_vec(), b"a fram\0\0".to_vec()]);
    assert_eq!(bench.sent_messages(), [0x42; 3]);
    // Nothing has arrived: the buffer waits.
    bench.give(0, &[(0x3_0000, 100, true)]);
    bench.notify(0);
    assert_eq!((bench.used(0).0, bench.sent_messages()), (0, vec![]));
    wire.arrived.lock().push_back(b"hello".to_vec());
    bench.devices.apply(bench.transport.poll(0));
    assert_eq!((bench.used(0), bench.sent_messages()), ((1, 17), vec![0x41]));
    assert_eq!(&bench.get::<17>(0x3_0000), b"\0\0\0\0\0\0\0\0\0\0\x01\0hello");
    // What arrived before there was a buffer, in pieces.
    wire.arrived.lock().push_back(b"in many pieces".to_vec());
    bench.devices.apply(bench.transport.poll(0));
    bench.give(0, &[(0x3_1000, 5, true), (0x3_2000, 10, true), (0x3_3000, 50, true)]);
    bench.notify(0);
    assert_eq!(bench.used(0), (2, 26));
    assert_eq!((&bench.get::<3>(0x3_2007), &bench.get::<11>(0x3_3000)), (b"in ", b"many pieces"));
}
