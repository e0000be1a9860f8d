//! Validation without execution, by an extension of the library's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_graphql::extensions::{Extension, ExtensionContext, ExtensionFactory, NextValidation};
use async_graphql::{ServerError, ValidationResult};

/// A question that is only to be validated.
pub(in crate::graphql) struct OnlyValidate;

/// Says whether a question was found valid, so that something may have been done.
pub(in crate::graphql) struct IsValid(pub(in crate::graphql) Arc<AtomicBool>);

/// Ends a question that is only to be validated.
pub(crate) struct Validator;

impl ExtensionFactory for Validator {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(Self)
    }
}

#[async_trait::async_trait]
impl Extension for Validator {
    async fn validation(
        &self,
        ctx: &ExtensionContext<'_>,
        next: NextValidation<'_>,
    ) -> std::result::Result<ValidationResult, Vec<ServerError>> {
        let result = next.run(ctx).await?;
        if let Some(IsValid(is_valid)) = ctx.data_opt() {
            is_valid.store(true, Ordering::Relaxed);
        }
        // No error, and no execution either.
        if ctx.data_opt::<OnlyValidate>().is_some() { Err(Vec::new()) } else { Ok(result) }
    }
}
