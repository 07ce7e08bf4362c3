//! From when until when a certificate counts.

use rustls::{
    CertificateError,
    pki_types::{CertificateDer, UnixTime},
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The first and the last second in which a certificate counts, since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first one.
    pub from: i64,
    /// The last one.
    pub until: i64,
}

impl Validity {
    /// That of a certificate.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, read) = X509Certificate::from_der(certificate.as_ref())
            .map_err(|_| CertificateError::BadEncoding)?;
        let validity = read.validity();
        Ok(Self { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
    }

    /// Whether the certificate counts at this time.
    ///
    /// # Errors
    /// [`CertificateError::NotValidYet`] or [`CertificateError::Expired`].
    pub fn check(self, now: UnixTime) -> Result<(), CertificateError> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < self.from {
            return Err(CertificateError::NotValidYet);
        }
        if now > self.until { Err(CertificateError::Expired) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// 2020-01-01 and 2021-01-01.
    const YEAR: Validity = Validity { from: 1_577_836_800, until: 1_609_459_200 };

    #[test]
    fn a_certificate_counts_from_its_first_to_its_last_second() {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let validity = Validity::of(certificate.der()).unwrap();
        assert_eq!(validity, YEAR);
        let at = |second: i64| {
            let second = u64::try_from(second).unwrap();
            validity.check(UnixTime::since_unix_epoch(Duration::from_secs(second)))
        };
        assert_eq!(at(YEAR.from - 1), Err(CertificateError::NotValidYet));
        assert_eq!((at(YEAR.from), at(YEAR.until)), (Ok(()), Ok(())));
        assert_eq!(at(YEAR.until + 1), Err(CertificateError::Expired));
    }

    #[test]
    fn bytes_that_are_no_certificate_count_never() {
        let bytes = CertificateDer::from(vec![0x30, 0x80, 0, 1]);
        assert_eq!(Validity::of(&bytes), Err(CertificateError::BadEncoding));
    }
}
