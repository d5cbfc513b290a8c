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

    /// Whether the next entry gets a new one.
    #[inline]
    pub fn is_forgotten(&self) -> bool {
        self.number == 0
    }
}

impl Asids {
    /// Whether `asid` is valid on this CPU, number `cpu`. It stays so as long as its vCPU is the
    /// only one that runs there.
    pub fn has(&self, asid: &Asid, cpu: u32) -> bool {
        asid.number != 0 && asid.cpu == cpu && asid.round == self.round
    }

    /// Gives a new one of `count` identifiers (at least 2) on this CPU, number `cpu`. Whether the
    /// CPU has to forget all translations first.
    pub fn renew(&mut self, asid: &mut Asid, cpu: u32, count: u32) -> bool {
        // The first round begins with a flush: whoever was here before may have left something.
        let over = self.next == 0 || self.next >= count;
        if over {
            self.round += 1;
            self.next = 1;
        }
        *asid = Asid { round: self.round, cpu, number: self.next };
        self.next += 1;
        over
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
                let here = cpu as usize;
                let changed = !cpus[here].has(&vcpus[vcpu], cpu);
                let flush = changed && cpus[here].renew(&mut vcpus[vcpu], cpu, count);
                let number = vcpus[vcpu].number;
                prop_assert!(number > 0 && number < count);
                prop_assert!(cpus[here].has(&vcpus[vcpu], cpu));
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
