//! Validation without execution, by an extension of the library.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_graphql::extensions::{Extension, ExtensionContext, ExtensionFactory, NextValidation};
use async_graphql::{ServerError, ValidationResult};

/// Marks a request that is only to be validated.
pub(in crate::graphql) struct OnlyValidate;

/// Records that a request was found valid, so that it may have changed something.
pub(in crate::graphql) struct IsValid(pub(in crate::graphql) Arc<AtomicBool>);

/// Stops a request that is only to be validated before it is executed.
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
        // An empty list of errors stops the execution without reporting anything.
        if ctx.data_opt::<OnlyValidate>().is_some() { Err(Vec::new()) } else { Ok(result) }
    }
}
