//! Identifiers, each of its own type, so that they can't be mixed up.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident: $($part:ident),*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            $(uuid_id!(@$part);)*
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
    (@random) => {
        /// A new random id.
        pub fn random() -> Self {
            Self(Uuid::new_v4())
        }
    };
    (@as_bytes) => {
        /// The 16 bytes by which the store keys records.
        pub(crate) fn as_bytes(&self) -> &[u8; 16] {
            self.0.as_bytes()
        }
    };
    (@from_bytes) => {
        /// The id with these 16 bytes.
        pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
            Self(Uuid::from_bytes(bytes))
        }
    };
}

uuid_id!(
    /// A background task.
    TaskId: random, as_bytes, from_bytes
);
uuid_id!(
    /// An image: one registry, name, tag and architecture.
    ImageId: as_bytes
);
uuid_id!(
    /// A registry, for clients that call it by a number.
    RegistryId:
);
uuid_id!(
    /// An alias, for clients that call it by a number.
    AliasId:
);
uuid_id!(
    /// A person or a program with an account.
    UserId: random, as_bytes
);
uuid_id!(
    /// A group (project) of users within a domain.
    GroupId: random, as_bytes, from_bytes
);
uuid_id!(
    /// A personal API token.
    TokenId: random
);

/// The namespaces of ids that are derived from names. They are UUIDs made once for wharf.
const IMAGES: Uuid = Uuid::from_u128(0x6b1f_27e4_0c0d_4d0e_9f35_6d5f_7768_6172);
const REGISTRIES: Uuid = Uuid::from_u128(0xd2a4_6f1b_93c8_4e57_8a1d_0f6e_35b9_7c42);
const ALIASES: Uuid = Uuid::from_u128(0x84e0_3c9d_57f2_4b6a_b7d5_21c8_fa60_9e13);

impl ImageId {
    /// The id of the image with this canonical name and architecture. It depends on nothing else, so an image that is
    /// forgotten and scanned again, or restored elsewhere, keeps the id that scripts remember.
    pub fn of(canonical: &str, architecture: &str) -> Self {
        Self(Uuid::new_v5(&IMAGES, format!("{canonical}\n{architecture}").as_bytes()))
    }
}

impl RegistryId {
    /// The id of the registry with this host: the same whenever it is added.
    pub(crate) fn of(host: &str) -> Self {
        Self(Uuid::new_v5(&REGISTRIES, host.as_bytes()))
    }
}

impl AliasId {
    /// The id of this alias, whatever image it names.
    pub(crate) fn of(alias: &str) -> Self {
        Self(Uuid::new_v5(&ALIASES, alias.as_bytes()))
    }
}
