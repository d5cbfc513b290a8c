//! The states of a VM and the steps between them.

use core::fmt;

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Built; no vCPU has run.
    Created,
    /// Its vCPUs may run.
    Running,
    /// It ended or was stopped; memory and devices are still there.
    Stopped,
    /// Nothing of it is left but handles that somebody still holds.
    Destroyed,
}

/// What can be done with a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Let its vCPUs run.
    Start,
    /// Run one of them: only while they may run.
    Run,
    /// Let them run no more.
    Stop,
    /// Give everything back.
    Destroy,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Created, Self::Running, Self::Stopped, Self::Destroyed];

    /// The state after a step, or `None` where the step is illegal. The whole table:
    ///
    /// | from \ step | start | run | stop | destroy |
    /// |---|---|---|---|---|
    /// | created | running | | | destroyed |
    /// | running | | running | stopped | |
    /// | stopped | running | | | destroyed |
    /// | destroyed | | | | |
    pub const fn allows(self, step: Step) -> Option<Self> {
        match (self, step) {
            (Self::Created | Self::Stopped, Step::Start) => Some(Self::Running),
            (Self::Running, Step::Run) => Some(Self::Running),
            (Self::Running, Step::Stop) => Some(Self::Stopped),
            (Self::Created | Self::Stopped, Step::Destroy) => Some(Self::Destroyed),
            _ => None,
        }
    }

    /// What to do about a VM that is in this state and in the way.
    pub(super) const fn advice(self) -> &'static str {
        match self {
            Self::Created => "start it first",
            Self::Running => "stop it first",
            Self::Stopped => "start it again, or destroy it",
            Self::Destroyed => "create a new one",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Destroyed => "destroyed",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Run => "run a vCPU",
            Self::Stop => "stop",
            Self::Destroy => "be destroyed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_documented_one() {
        use State::{Created, Destroyed, Running, Stopped};
        let table = [
            (Created, [Some(Running), None, None, Some(Destroyed)]),
            (Running, [None, Some(Running), Some(Stopped), None]),
            (Stopped, [Some(Running), None, None, Some(Destroyed)]),
            (Destroyed, [None; 4]),
        ];
        for (state, next) in table {
            let steps = [Step::Start, Step::Run, Step::Stop, Step::Destroy];
            assert_eq!(steps.map(|step| state.allows(step)), next);
        }
    }
}
