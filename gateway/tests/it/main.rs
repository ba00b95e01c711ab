//! The gateway between a real client and real servers, all in this process.

#[cfg(test)]
mod columns;
#[cfg(test)]
mod delivery;
#[cfg(test)]
mod denials;
#[cfg(test)]
mod governed;
#[cfg(test)]
mod legacy;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod mtls;
#[cfg(test)]
mod oauth;
#[cfg(test)]
mod passing;
#[cfg(test)]
mod policy_file;
#[cfg(test)]
mod policy_stream;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod support;
#[cfg(test)]
mod symptoms;
#[cfg(test)]
mod traces;
