//! A column that a service may have made with one of several types.

use std::error;

use tokio_postgres::types::{FromSql, Type};

/// What is stored, as it would be published.
pub struct StoredValue {
    /// `Err`: the name of a type that is none of those.
    pub bytes: Result<Vec<u8>, String>,
}

impl<'a> FromSql<'a> for StoredValue {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<StoredValue, Box<dyn error::Error + Sync + Send>> {
        let bytes = match *kind {
            Type::BYTEA | Type::TEXT | Type::VARCHAR | Type::JSON => Ok(raw.to_vec()),
            // Its first byte is the version of its format.
            Type::JSONB => Ok(raw.get(1..).unwrap_or_default().to_vec()),
            _ => Err(kind.name().to_owned()),
        };
        Ok(StoredValue { bytes })
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
