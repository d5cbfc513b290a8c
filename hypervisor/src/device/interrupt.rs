//! Interrupt lines, shared and counted, and message-signalled interrupts.
//!
//! A [`Lines`] stands between devices and an interrupt controller: several sources may drive one
//! line, and the controller sees the line rise with the first and fall with the last. A source
//! counts once however often it is raised.

use crate::sync::Mutex;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A message-signalled interrupt (PCI 3.0 §6.8): a write that an interrupt controller takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// Who sends it: the requester ID (bus, device, function), for interrupt remapping and ITS.
    pub device: u32,
    /// Address.
    pub address: u64,
    /// Data.
    pub data: u32,
}

/// What takes interrupts: an emulated controller, or a backend's.
///
/// Contract: it is called with a lock of [`Lines`] held; it calls nothing of this module and does
/// not block.
pub trait InterruptSink: Send + Sync {
    /// A level-triggered line rose or fell.
    fn set_line(&self, line: u32, asserted: bool);

    /// An edge on an edge-triggered line.
    fn pulse(&self, line: u32);

    /// A message.
    fn msi(&self, message: MsiMessage);
}

/// How a source drives its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// While asserted, the line is high.
    Level,
    /// Every raise is an edge; lowering does nothing.
    Edge,
}

/// A source of interrupts, as [`Lines::source`] numbered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceId(u32);

#[derive(Debug)]
struct Source {
    line: u32,
    trigger: Trigger,
    asserted: bool,
}

/// The sources of a VM and the lines that they drive.
pub struct Lines {
    sink: Arc<dyn InterruptSink>,
    /// Held while the sink is called, so that it sees rises and falls in the order in which they
    /// happened.
    sources: Mutex<Vec<Source>>,
}

impl Lines {
    /// No sources yet.
    pub fn new(sink: Arc<dyn InterruptSink>) -> Self {
        Self { sink, sources: Mutex::new(Vec::new()) }
    }

    /// Declares a source. Sources of one line are meant to have the same trigger.
    pub fn source(&self, line: u32, trigger: Trigger) -> SourceId {
        let mut sources = self.sources.lock();
        let id = u32::try_from(sources.len()).unwrap_or(u32::MAX);
        sources.push(Source { line, trigger, asserted: false });
        SourceId(id)
    }

    /// Asserts a source, or sends an edge. A source that is not of this VM does nothing.
    pub fn raise(&self, id: SourceId) {
        let mut sources = self.sources.lock();
        let Some(source) = get(&mut sources, id) else { return };
        let line = source.line;
        if source.trigger == Trigger::Edge {
            self.sink.pulse(line);
        } else if !core::mem::replace(&mut source.asserted, true) && asserting(&sources, line) == 1
        {
            self.sink.set_line(line, true);
        }
    }

    /// Deasserts a source.
    pub fn lower(&self, id: SourceId) {
        let mut sources = self.sources.lock();
        let Some(source) = get(&mut sources, id) else { return };
        let line = source.line;
        if core::mem::take(&mut source.asserted) && asserting(&sources, line) == 0 {
            self.sink.set_line(line, false);
        }
    }

    /// Sends a message.
    pub fn msi(&self, message: MsiMessage) {
        self.sink.msi(message);
    }

    /// Deasserts every source: the machine was reset.
    pub fn reset(&self) {
        let mut sources = self.sources.lock();
        for index in 0..sources.len() {
            let line = sources[index].line;
            if core::mem::take(&mut sources[index].asserted) && asserting(&sources, line) == 0 {
                self.sink.set_line(line, false);
            }
        }
    }
}

impl core::fmt::Debug for Lines {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Lines").field("sources", &self.sources).finish_non_exhaustive()
    }
}

fn get(sources: &mut [Source], id: SourceId) -> Option<&mut Source> {
    sources.get_mut(usize::try_from(id.0).ok()?)
}

/// How many sources hold a line up. A machine has few sources.
fn asserting(sources: &[Source], line: u32) -> usize {
    sources.iter().filter(|source| source.line == line && source.asserted).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[derive(Default)]
    struct Pins {
        high: Mutex<BTreeSet<u32>>,
        pulses: Mutex<BTreeMap<u32, u32>>,
    }

    impl InterruptSink for Pins {
        fn set_line(&self, line: u32, asserted: bool) {
            let mut high = self.high.lock();
            let changed = if asserted { high.insert(line) } else { high.remove(&line) };
            assert!(changed, "line {line} was told twice to be {asserted}");
        }

        fn pulse(&self, line: u32) {
            *self.pulses.lock().entry(line).or_default() += 1;
        }

        fn msi(&self, _: MsiMessage) {}
    }

    #[derive(Debug, Clone)]
    enum Step {
        Raise(usize),
        Lower(usize),
        Reset,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0usize..12).prop_map(Step::Raise),
            8 => (0usize..12).prop_map(Step::Lower),
            1 => Just(Step::Reset),
        ]
    }

    proptest! {
        #[test]
        fn a_line_is_high_while_any_of_its_sources_is(
            lines in prop::collection::vec((0u32..3, any::<bool>()), 12),
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let pins = Arc::new(Pins::default());
            let shared = Lines::new(pins.clone());
            // Lines 0..3 are level-triggered, 10..13 edge-triggered.
            let sources: Vec<_> = lines.iter().map(|(line, edge)| {
                if *edge { (line + 10, Trigger::Edge) } else { (*line, Trigger::Level) }
            }).collect();
            let ids: Vec<_> = sources.iter().map(|(l, t)| shared.source(*l, *t)).collect();
            let mut asserted = [false; 12];
            let mut pulses = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Raise(i) => {
                        shared.raise(ids[i]);
                        asserted[i] = true;
                        if sources[i].1 == Trigger::Edge {
                            *pulses.entry(sources[i].0).or_default() += 1;
                        }
                    }
                    Step::Lower(i) => { shared.lower(ids[i]); asserted[i] = false; }
                    Step::Reset => { shared.reset(); asserted = [false; 12]; }
                }
                let high: BTreeSet<u32> = (0..12)
                    .filter(|i| asserted[*i] && sources[*i].1 == Trigger::Level)
                    .map(|i| sources[i].0)
                    .collect();
                prop_assert_eq!(&*pins.high.lock(), &high);
            }
            prop_assert_eq!(&*pins.pulses.lock(), &pulses);
        }
    }

    #[test]
    fn a_source_of_another_vm_does_nothing() {
        let lines = Lines::new(Arc::new(Pins::default()));
        lines.raise(SourceId(0));
        lines.lower(SourceId(u32::MAX));
    }
}
