//! The pages: each is a pure view over data, its template in `web/pages`, and what its forms do.

pub(crate) mod about;
pub(crate) mod access;
pub(crate) mod account;
pub(crate) mod accounts;
pub(crate) mod announcements;
pub(crate) mod claim;
pub(crate) mod conditions;
pub(crate) mod consents;
pub(crate) mod data;
pub(crate) mod demonstration;
pub(crate) mod erase;
pub(crate) mod home;
pub(crate) mod password;
pub(crate) mod point;
pub(crate) mod sign_in;
pub(crate) mod sign_out;
pub(crate) mod technician;
