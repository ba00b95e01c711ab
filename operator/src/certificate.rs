//! The operator's own certificate and the authority that signed it. Pure, but for the randomness of keys.
//!
//! Nobody has to provide them: [`renewed`] makes what is missing or about to end. A certificate lives for three months and is replaced
//! with a month left. The authority lives for ten years; with one year left a new one takes over, and the old one stays in the bundle, so
//! that whoever still has a certificate of the old one is believed until it ends.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use std::time::Duration;

const DAY: i64 = 24 * 60 * 60;
/// Life of a certificate, and what must be left of it.
const CERTIFICATE_SECONDS: i64 = 90 * DAY;
const CERTIFICATE_SECONDS_LEFT_MIN: i64 = 30 * DAY;
/// Life of an authority, and what must be left of it. More than a certificate lives.
const AUTHORITY_SECONDS: i64 = 3_650 * DAY;
const AUTHORITY_SECONDS_LEFT_MIN: i64 = 365 * DAY;
/// Clocks of the cluster may be behind ours by this much.
const BACKDATED_SECONDS: i64 = 60 * 60;
const AUTHORITY_NAME: &str = "mcp-operator authority";
const END: &str = "-----END CERTIFICATE-----";

/// Certificates and keys, as PEM, with when they end.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// Those to believe: the newest authority first, then the one before.
    pub authorities: String,
    /// Key of the newest authority.
    pub authority_key: String,
    /// When the newest authority ends, in seconds since 1970.
    pub authority_ends: i64,
    pub certificate: String,
    pub key: String,
    /// When the certificate ends, in seconds since 1970.
    pub ends: i64,
    /// Names it is for, sorted.
    pub names: Vec<String>,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material")
            .field("authority_ends", &self.authority_ends)
            .field("ends", &self.ends)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// What should take the place of what is held; `None` when that is good. `now` is in seconds since 1970.
pub fn renewed(held: Option<&Material>, names: &[String], now: i64) -> Result<Option<Material>, Error> {
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    let authority = held.filter(|held| held.authority_ends - now >= AUTHORITY_SECONDS_LEFT_MIN);
    if let Some(held) = authority
        && held.ends - now >= CERTIFICATE_SECONDS_LEFT_MIN
        && held.names == names
    {
        return Ok(None);
    }
    let (authorities, authority_key, authority_ends) = match authority {
        Some(held) => (
            held.authorities.clone(),
            KeyPair::from_pem(&held.authority_key)?,
            held.authority_ends,
        ),
        None => new_authority(held, now)?,
    };
    let params = authority_params(now, authority_ends);
    let issuer = Issuer::from_params(&params, &authority_key);
    let key = KeyPair::generate()?;
    let ends = now + CERTIFICATE_SECONDS;
    let certificate = certificate_params(&names, now, ends)?.signed_by(&key, &issuer)?;
    Ok(Some(Material {
        authorities,
        authority_key: authority_key.serialize_pem(),
        authority_ends,
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        ends,
        names,
    }))
}

fn new_authority(held: Option<&Material>, now: i64) -> Result<(String, KeyPair, i64), Error> {
    let (key, ends) = (KeyPair::generate()?, now + AUTHORITY_SECONDS);
    let mut authorities = authority_params(now, ends).self_signed(&key)?.pem();
    if let Some(held) = held.filter(|held| held.authority_ends > now)
        && let Some((first, _)) = held.authorities.split_once(END)
    {
        authorities = format!("{}\n{first}{END}\n", authorities.trim_end());
    }
    Ok((authorities, key, ends))
}

fn authority_params(now: i64, ends: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_life(&mut params, now, ends);
    params
}

fn certificate_params(names: &[String], now: i64, ends: i64) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = name("mcp-operator");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    set_life(&mut params, now, ends);
    Ok(params)
}

fn set_life(params: &mut CertificateParams, now: i64, ends: i64) {
    let at = |seconds: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    (params.not_before, params.not_after) = (at(now - BACKDATED_SECONDS), at(ends));
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

#[cfg(test)]
mod tests;
