//! Where a secret lives: region, partition, and the ARNs that name them.
//!
//! A region becomes part of a host name and is a tenant's word, so that only labels pass. A partition is a cloud of its own
//! with its own accounts: an ARN, a role and a region have to agree on it.
//! Source: AWS General Reference, "Amazon Resource Names" and "Service endpoints"; the SDK's `partitions.json`.

use std::{fmt, sync::Arc};

/// Longest region, in bytes; the longest today has 14.
const MAX_REGION: usize = 32;

/// A region that is fit to stand in a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manager) struct Region(Arc<str>);

/// A cloud of its own: no account, role or secret is known in two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::manager) enum Partition {
    /// `aws`.
    Commercial,
    /// `aws-cn`.
    China,
    /// `aws-us-gov`.
    GovCloud,
    /// `aws-eusc`.
    EuropeanSovereign,
    /// `aws-iso`.
    Iso,
    /// `aws-iso-b`.
    IsoB,
    /// `aws-iso-e`.
    IsoE,
    /// `aws-iso-f`.
    IsoF,
}

/// `arn:partition:service:region:account:resource`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manager) struct Arn<'a> {
    pub(in crate::manager) partition: Partition,
    pub(in crate::manager) service: &'a str,
    /// `None` for services without regions (IAM).
    pub(in crate::manager) region: Option<Region>,
}

// === impl Region ===

impl Region {
    /// `None` unless `text` is a label of `[a-z0-9-]{1,32}`.
    pub(in crate::manager) fn new(text: &str) -> Option<Self> {
        let fits = (1..=MAX_REGION).contains(&text.len())
            && !text.starts_with('-')
            && !text.ends_with('-')
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        fits.then(|| Self(text.into()))
    }

    pub(in crate::manager) fn as_str(&self) -> &str {
        &self.0
    }

    pub(in crate::manager) fn partition(&self) -> Partition {
        let found = Partition::ALL
            .into_iter()
            .find(|partition| partition.region_prefixes().iter().any(|prefix| self.0.starts_with(prefix)));
        found.unwrap_or(Partition::Commercial)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Partition ===

impl Partition {
    const ALL: [Self; 8] = [
        Self::Commercial,
        Self::China,
        Self::GovCloud,
        Self::EuropeanSovereign,
        Self::Iso,
        Self::IsoB,
        Self::IsoE,
        Self::IsoF,
    ];

    /// The spelling of ARNs.
    pub(in crate::manager) const fn as_str(self) -> &'static str {
        match self {
            Self::Commercial => "aws",
            Self::China => "aws-cn",
            Self::GovCloud => "aws-us-gov",
            Self::EuropeanSovereign => "aws-eusc",
            Self::Iso => "aws-iso",
            Self::IsoB => "aws-iso-b",
            Self::IsoE => "aws-iso-e",
            Self::IsoF => "aws-iso-f",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|partition| partition.as_str() == name)
    }

    /// How its regions begin; the commercial ones begin with everything else.
    const fn region_prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Commercial => &[],
            Self::China => &["cn-"],
            Self::GovCloud => &["us-gov-"],
            Self::EuropeanSovereign => &["eusc-"],
            Self::Iso => &["us-iso-"],
            Self::IsoB => &["us-isob-"],
            Self::IsoE => &["eu-isoe-"],
            Self::IsoF => &["us-isof-", "eu-isof-"],
        }
    }
}

// === impl Arn ===

impl<'a> Arn<'a> {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// A reason for people; it quotes nothing.
    pub(in crate::manager) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let &["arn", partition, service, region, account, _] = parts.as_slice() else {
            return Err("is no ARN: write arn:partition:service:region:account:resource");
        };
        let partition = Partition::from_name(partition).ok_or("is an ARN of an unknown partition")?;
        let region = match region {
            "" => None,
            region => Some(Region::new(region).ok_or("is an ARN whose region is none")?),
        };
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("is an ARN whose account is not twelve digits");
        }
        if region.as_ref().is_some_and(|region| region.partition() != partition) {
            return Err("is an ARN whose region lies in another partition");
        }
        Ok(Self { partition, service, region })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_says_where_it_points() {
        #[rustfmt::skip]
        let rows = [
            // ARN, partition and region, or what the refusal says
            ("arn:aws:secretsmanager:us-east-1:123456789012:secret:app/db-AbCdEf", Ok(("aws", Some("us-east-1")))),
            ("arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:a", Ok(("aws-cn", Some("cn-north-1")))),
            ("arn:aws-us-gov:ssm:us-gov-west-1:123456789012:parameter/a", Ok(("aws-us-gov", Some("us-gov-west-1")))),
            ("arn:aws-eusc:ssm:eusc-de-east-1:123456789012:parameter/a", Ok(("aws-eusc", Some("eusc-de-east-1")))),
            ("arn:aws-iso-b:ssm:us-isob-east-1:123456789012:parameter/a", Ok(("aws-iso-b", Some("us-isob-east-1")))),
            ("arn:aws:iam::123456789012:role/gw", Ok(("aws", None))),
            ("arn:aws:secretsmanager:cn-north-1:123456789012:secret:a", Err("another partition")),
            ("arn:aws-cn:secretsmanager:us-east-1:123456789012:secret:a", Err("another partition")),
            ("arn:aws:secretsmanager:evil.example/x:123456789012:secret:a", Err("region")),
            ("arn:aws:secretsmanager:us-east-1.evil:123456789012:secret:a", Err("region")),
            ("arn:aws:secretsmanager:-:123456789012:secret:a", Err("region")),
            ("arn:aws-mars:secretsmanager:us-east-1:123456789012:secret:a", Err("unknown partition")),
            ("arn:aws:secretsmanager:us-east-1:1234:secret:a", Err("twelve digits")),
            ("arn:aws:secretsmanager:us-east-1:123456789012", Err("no ARN")),
            ("app/db", Err("no ARN")),
        ];
        for (text, expected) in rows {
            let arn = Arn::parse(text);
            match (&arn, expected) {
                (Ok(arn), Ok(place)) => {
                    assert_eq!((arn.partition.as_str(), arn.region.as_ref().map(Region::as_str)), place, "{text}");
                }
                (Err(reason), Err(says)) => assert!(reason.contains(says), "{text}: {reason}"),
                _ => panic!("{text}: {arn:?}"),
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_region_is_one_label_of_a_host_name(text in ".{0,40}") {
            let Some(region) = Region::new(&text) else { return Ok(()) };
            let host = format!("https://secretsmanager.{region}.amazonaws.com/");
            let url = url::Url::parse(&host).unwrap();
            proptest::prop_assert_eq!(url.host_str().unwrap().split('.').count(), 4);
            proptest::prop_assert_eq!(url.as_str(), host.as_str());
        }
    }
}
