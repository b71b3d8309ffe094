use crate::error::LoadError;
use crate::sources::Settings;

/// What the state of a policy's memory is when its code is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// After `lifecycle.init`.
    SetUp,
    /// As the author's compiler left it; `init` has to be called.
    Plain,
}

impl State {
    /// The key with this state in it.
    pub(crate) fn named(self, key: &str) -> String {
        match self {
            State::SetUp => format!("{key}-set-up"),
            State::Plain => key.to_owned(),
        }
    }

    /// The settings that still have to be given.
    pub(crate) fn settings(self, settings: &Settings) -> Result<Option<String>, LoadError> {
        match self {
            State::SetUp => Ok(None),
            State::Plain => settings.json().map(Some),
        }
    }
}
