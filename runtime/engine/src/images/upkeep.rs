//! `rlrun system`: how much there is, whether it is sound, and getting rid of all of it.

use super::{Store, Workshop};
use crate::place::Place;
use crate::record;
use rlrun_image::{Checked, Damage, Usage};
use rlrun_spec::Failure;

/// `rlrun system df`: what images take.
///
/// # Errors
/// When the store cannot be read.
pub fn usage(place: &Place) -> Result<Usage, Failure> {
    Ok(Store::new(&place.data).usage(&|id| record::user_of_image(place, id))?)
}

/// `rlrun system check`: reads only.
///
/// # Errors
/// When the store cannot be read.
pub fn check(place: &Place) -> Result<Checked, Failure> {
    Ok(Store::new(&place.data).check()?)
}

impl Workshop {
    /// `rlrun system check --repair`: removes damaged images; gives back what a container keeps.
    ///
    /// # Errors
    /// When the store cannot be changed.
    pub fn repair(&self, checked: &Checked) -> Result<Vec<Damage>, Failure> {
        let in_use = |id: &str| record::user_of_image(&self.place, id);
        Ok(self.store.repair(checked, &in_use, &self.jobs)?)
    }
}
