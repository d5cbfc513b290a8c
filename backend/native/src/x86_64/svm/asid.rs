//! Address space identifiers (AMD APM vol. 2 §15.16), a CPU at a time.
//!
//! A vCPU gets a new one whenever its translations here may be old: when it comes to this CPU,
//! and when it asks for a flush. When all have been used, the CPU forgets every translation and
//! numbers anew. So an identifier's translations are never another vCPU's, nor old ones.

/// The identifiers of one CPU. All zeros: nothing was given out yet.
#[derive(Debug, Default)]
pub(crate) struct Asids {
    round: u64,
    next: u32,
}

/// A vCPU's identifier, and the CPU and round where it is valid.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asid {
    round: u64,
    cpu: u32,
    /// 0: none.
    pub number: u32,
}

impl Asid {
    /// The next entry gets a new one.
    pub fn forget(&mut self) {
        self.number = 0;
    }
}

impl Asids {
    /// Makes `asid` valid on this CPU, number `cpu`, of `count` identifiers (at least 2). Whether
    /// it changed, and whether the CPU has to forget all translations first.
    pub fn renew(&mut self, asid: &mut Asid, cpu: u32, count: u32) -> (bool, bool) {
        if asid.number != 0 && asid.cpu == cpu && asid.round == self.round {
            return (false, false);
        }
        // The first round begins with a flush: whoever was here before may have left something.
        let over = self.next == 0 || self.next >= count;
        if over {
            self.round += 1;
            self.next = 1;
        }
        *asid = Asid { round: self.round, cpu, number: self.next };
        self.next += 1;
        (true, over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Two CPUs, some vCPUs: no identifier is used twice between two flushes, except by the
        /// vCPU that has it.
        #[test]
        fn an_identifier_has_one_user_between_flushes(
            count in 2u32..6,
            steps in prop::collection::vec((0usize..4, 0u32..2, any::<bool>()), 0..200),
        ) {
            let mut cpus = [Asids::default(), Asids::default()];
            let mut vcpus = [Asid::default(); 4];
            let mut users = [BTreeMap::new(), BTreeMap::new()];
            for (vcpu, cpu, forget) in steps {
                if forget {
                    vcpus[vcpu].forget();
                }
                let before = vcpus[vcpu];
                let here = cpu as usize;
                let (changed, flush) = cpus[here].renew(&mut vcpus[vcpu], cpu, count);
                let number = vcpus[vcpu].number;
                prop_assert!(number > 0 && number < count);
                prop_assert_eq!(changed, before != vcpus[vcpu]);
                if flush {
                    users[here].clear();
                }
                let old = users[here].insert(number, vcpu);
                prop_assert_eq!(old.is_some(), !changed);
                prop_assert!(old.is_none_or(|old| old == vcpu));
            }
        }
    }
}
