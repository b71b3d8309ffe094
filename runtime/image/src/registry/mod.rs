//! Registries: which ones a name means (registries.conf), who we are there (auth.json), how to talk to them
//! (distribution spec 1.1), and pulling.

mod conf;

pub(crate) use conf::Registries;
