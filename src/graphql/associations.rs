//! Which domain, group or keypair may use which scaling group, under Backend.AI's names.

use async_graphql::{Context, Object};

use crate::access::caller::Caller;
use crate::access::directory::Directory;
use crate::access::directory::associations::{Association, Grantee};
use crate::graphql::kit::outcome::outcome;
use crate::graphql::kit::scalar::Uuid;

outcome!(
    /// The result of `associate_scaling_group_with_domain`.
    AssociateScalingGroupWithDomain
);
outcome!(
    /// The result of `disassociate_scaling_group_with_domain`.
    DisassociateScalingGroupWithDomain
);
outcome!(
    /// The result of `associate_scaling_groups_with_domain`.
    AssociateScalingGroupsWithDomain
);
outcome!(
    /// The result of `disassociate_scaling_groups_with_domain`.
    DisassociateScalingGroupsWithDomain
);
outcome!(
    /// The result of `associate_scaling_group_with_user_group`.
    AssociateScalingGroupWithUserGroup
);
outcome!(
    /// The result of `disassociate_scaling_group_with_user_group`.
    DisassociateScalingGroupWithUserGroup
);
outcome!(
    /// The result of `associate_scaling_groups_with_user_group`.
    AssociateScalingGroupsWithUserGroup
);
outcome!(
    /// The result of `disassociate_scaling_groups_with_user_group`.
    DisassociateScalingGroupsWithUserGroup
);
outcome!(
    /// The result of `associate_scaling_group_with_keypair`.
    AssociateScalingGroupWithKeypair
);
outcome!(
    /// The result of `disassociate_scaling_group_with_keypair`.
    DisassociateScalingGroupWithKeypair
);
outcome!(
    /// The result of `associate_scaling_groups_with_keypair`.
    AssociateScalingGroupsWithKeypair
);
outcome!(
    /// The result of `disassociate_scaling_groups_with_keypair`.
    DisassociateScalingGroupsWithKeypair
);
outcome!(
    /// The result of `disassociate_all_scaling_groups_with_domain`.
    DisassociateAllScalingGroupsWithDomain
);
outcome!(
    /// The result of `disassociate_all_scaling_groups_with_group`.
    DisassociateAllScalingGroupsWithGroup
);

async fn associate(
    ctx: &Context<'_>,
    action: &'static str,
    grantee: Grantee,
    change: Association,
) -> crate::base::Result<()> {
    let (caller, directory) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Directory>());
    directory.associate(caller, action, grantee, change).await
}

/// The mutations. All are for super-admins. A mutation that finds its change already made succeeds.
#[derive(Default)]
pub(crate) struct AssociationMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl AssociationMutation {
    /// Lets a domain use a scaling group.
    async fn associate_scaling_group_with_domain(
        &self,
        ctx: &Context<'_>,
        scaling_group: String,
        domain: String,
    ) -> Option<AssociateScalingGroupWithDomain> {
        let change = Association::Add(vec![scaling_group]);
        Some(
            associate(ctx, "associate_scaling_group_with_domain", Grantee::Domain(domain), change)
                .await
                .into(),
        )
    }

    /// Takes a scaling group away from a domain.
    async fn disassociate_scaling_group_with_domain(
        &self,
        ctx: &Context<'_>,
        scaling_group: String,
        domain: String,
    ) -> Option<DisassociateScalingGroupWithDomain> {
        let change = Association::Remove(vec![scaling_group]);
        Some(
            associate(ctx, "disassociate_scaling_group_with_domain", Grantee::Domain(domain), change)
                .await
                .into(),
        )
    }

    /// Lets a domain use several scaling groups.
    async fn associate_scaling_groups_with_domain(
        &self,
        ctx: &Context<'_>,
        scaling_groups: Vec<String>,
        domain: String,
    ) -> Option<AssociateScalingGroupsWithDomain> {
        let change = Association::Add(scaling_groups);
        Some(
            associate(ctx, "associate_scaling_groups_with_domain", Grantee::Domain(domain), change)
                .await
                .into(),
        )
    }

    /// Takes scaling groups away from a domain.
    async fn disassociate_scaling_groups_with_domain(
        &self,
        ctx: &Context<'_>,
        scaling_groups: Vec<String>,
        domain: String,
    ) -> Option<DisassociateScalingGroupsWithDomain> {
        let change = Association::Remove(scaling_groups);
        Some(
            associate(ctx, "disassociate_scaling_groups_with_domain", Grantee::Domain(domain), change)
                .await
                .into(),
        )
    }

    /// Lets a group use a scaling group.
    async fn associate_scaling_group_with_user_group(
        &self,
        ctx: &Context<'_>,
        scaling_group: String,
        user_group: Uuid,
    ) -> Option<AssociateScalingGroupWithUserGroup> {
        let change = Association::Add(vec![scaling_group]);
        Some(
            associate(
                ctx,
                "associate_scaling_group_with_user_group",
                Grantee::Group(user_group.group()),
                change,
            )
            .await
            .into(),
        )
    }

    /// Takes a scaling group away from a group.
    async fn disassociate_scaling_group_with_user_group(
        &self,
        ctx: &Context<'_>,
        scaling_group: String,
        user_group: Uuid,
    ) -> Option<DisassociateScalingGroupWithUserGroup> {
        let change = Association::Remove(vec![scaling_group]);
        Some(
            associate(
                ctx,
                "disassociate_scaling_group_with_user_group",
                Grantee::Group(user_group.group()),
                change,
            )
            .await
            .into(),
        )
    }

    /// Lets a group use several scaling groups.
    async fn associate_scaling_groups_with_user_group(
        &self,
        ctx: &Context<'_>,
        scaling_groups: Vec<String>,
        user_group: Uuid,
    ) -> Option<AssociateScalingGroupsWithUserGroup> {
        let change = Association::Add(scaling_groups);
        Some(
            associate(
                ctx,
                "associate_scaling_groups_with_user_group",
                Grantee::Group(user_group.group()),
                change,
            )
            .await
            .into(),
        )
    }

    /// Takes scaling groups away from a group.
    async fn disassociate_scaling_groups_with_user_group(
        &self,
        ctx: &Context<'_>,
        scaling_groups: Vec<String>,
        user_group: Uuid,
    ) -> Option<DisassociateScalingGroupsWithUserGroup> {
        let change = Association::Remove(scaling_groups);
        Some(
            associate(
                ctx,
                "disassociate_scaling_groups_with_user_group",
                Grantee::Group(user_group.group()),
                change,
            )
            .await
            .into(),
        )
    }

    /// Lets a keypair use a scaling group.
    async fn associate_scaling_group_with_keypair(
        &self,
        ctx: &Context<'_>,
        scaling_group: String,
        access_key: String,
    ) -> Option<AssociateScalingGroupWithKeypair> {
        let change = Association::Add(vec![scaling_group]);
        Some(
            associate(ctx, "associate_scaling_group_with_keypair", Grantee::Keypair(access_key), change)
                .await
                .into(),
        )
    }

    /// Takes a scaling group away from a keypair.
    async fn disassociate_scaling_group_with_keypair(
        &self,
        ctx: &Context<'_>,
        scaling_group: String,
        access_key: String,
    ) -> Option<DisassociateScalingGroupWithKeypair> {
        let change = Association::Remove(vec![scaling_group]);
        Some(
            associate(ctx, "disassociate_scaling_group_with_keypair", Grantee::Keypair(access_key), change)
                .await
                .into(),
        )
    }

    /// Lets a keypair use several scaling groups.
    async fn associate_scaling_groups_with_keypair(
        &self,
        ctx: &Context<'_>,
        scaling_groups: Vec<String>,
        access_key: String,
    ) -> Option<AssociateScalingGroupsWithKeypair> {
        let change = Association::Add(scaling_groups);
        Some(
            associate(ctx, "associate_scaling_groups_with_keypair", Grantee::Keypair(access_key), change)
                .await
                .into(),
        )
    }

    /// Takes scaling groups away from a keypair.
    async fn disassociate_scaling_groups_with_keypair(
        &self,
        ctx: &Context<'_>,
        scaling_groups: Vec<String>,
        access_key: String,
    ) -> Option<DisassociateScalingGroupsWithKeypair> {
        let change = Association::Remove(scaling_groups);
        Some(
            associate(ctx, "disassociate_scaling_groups_with_keypair", Grantee::Keypair(access_key), change)
                .await
                .into(),
        )
    }

    /// Takes away all scaling groups that are assigned to a domain.
    async fn disassociate_all_scaling_groups_with_domain(
        &self,
        ctx: &Context<'_>,
        domain: String,
    ) -> Option<DisassociateAllScalingGroupsWithDomain> {
        Some(
            associate(
                ctx,
                "disassociate_all_scaling_groups_with_domain",
                Grantee::Domain(domain),
                Association::Clear,
            )
            .await
            .into(),
        )
    }

    /// Takes away all scaling groups that are assigned to a group.
    async fn disassociate_all_scaling_groups_with_group(
        &self,
        ctx: &Context<'_>,
        user_group: Uuid,
    ) -> Option<DisassociateAllScalingGroupsWithGroup> {
        Some(
            associate(
                ctx,
                "disassociate_all_scaling_groups_with_group",
                Grantee::Group(user_group.group()),
                Association::Clear,
            )
            .await
            .into(),
        )
    }
}
