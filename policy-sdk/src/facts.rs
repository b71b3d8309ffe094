//! What 0.1 says of a container or an image and what 0.2 adds to it, as one value.

use crate::bindings::capabilities::rlrun::policy0_1_0::types;
use crate::bindings::capabilities::rlrun::policy0_2_0::facts::{ContainerFacts, ImageFacts};
use crate::bindings::image::exports::rlrun::policy0_2_0::image;
use std::ops::{Deref, DerefMut};

/// A container: its effective configuration, and the facts beside it.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Container {
    #[cfg_attr(feature = "serde", serde(flatten))]
    configuration: types::Container,
    /// What is no part of the configuration.
    pub facts: ContainerFacts,
}

impl Container {
    /// Both in one.
    #[must_use]
    pub fn new(configuration: types::Container, facts: ContainerFacts) -> Self {
        Container { configuration, facts }
    }
}

impl Deref for Container {
    type Target = types::Container;

    fn deref(&self) -> &types::Container {
        &self.configuration
    }
}

impl DerefMut for Container {
    fn deref_mut(&mut self) -> &mut types::Container {
        &mut self.configuration
    }
}

/// What an image says of itself: hostile data.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ImageInfo {
    #[cfg_attr(feature = "serde", serde(flatten))]
    info: image::Info,
    /// Manifest, layers, history in full.
    pub facts: ImageFacts,
}

impl ImageInfo {
    /// Both in one.
    #[must_use]
    pub fn new(info: image::Info, facts: ImageFacts) -> Self {
        ImageInfo { info, facts }
    }
}

impl Deref for ImageInfo {
    type Target = image::Info;

    fn deref(&self) -> &image::Info {
        &self.info
    }
}

impl DerefMut for ImageInfo {
    fn deref_mut(&mut self) -> &mut image::Info {
        &mut self.info
    }
}
