//! Active checks: how many good or bad answers in a row change a member's state.

/// One member's checks. The first one decides alone: whether a newcomer works is not known, and waiting for `rise`
/// checks would keep it out, waiting for `fall` would send it requests.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    rise: u32,
    fall: u32,
    passing: Option<bool>,
    /// Answers in a row that contradict `passing`.
    against: u32,
}

impl Probe {
    /// `rise` good checks in a row bring it up, `fall` bad ones take it down; both at least 1.
    #[must_use]
    pub const fn new(rise: u32, fall: u32) -> Self {
        Self { rise, fall, passing: None, against: 0 }
    }

    /// What a check said. Some if that changes the state: whether it passes now.
    pub fn record(&mut self, good: bool) -> Option<bool> {
        let Some(passing) = self.passing else {
            self.passing = Some(good);
            return Some(good);
        };
        if good == passing {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < if good { self.rise } else { self.fall } {
            return None;
        }
        self.against = 0;
        self.passing = Some(good);
        Some(good)
    }

    /// It was never checked.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.passing.is_none()
    }

    /// Unchecked counts as passing.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.passing.unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(checks: &str) -> (String, Probe) {
        let mut probe = Probe::new(2, 3);
        let told = checks.chars().map(|check| match probe.record(check == '+') {
            Some(true) => 'U',
            Some(false) => 'D',
            None => '.',
        });
        (told.collect(), probe)
    }

    #[test]
    fn the_first_check_decides_then_it_takes_some_in_a_row() {
        assert_eq!(after("+---++").0, "U..D.U");
        assert_eq!(after("-++").0, "D.U");
    }

    #[test]
    fn flapping_changes_nothing() {
        let (told, probe) = after("+--+--+--+-+-");
        assert_eq!(told, "U............");
        assert!(probe.passes());
    }

    #[test]
    fn unchecked_passes() {
        assert!(Probe::new(1, 1).passes());
    }
}
