//! The arguments whose type has different names in different client generations.
//!
//! GraphQL requires that the type of a variable is that of the argument it is used for, by name. The names below are
//! those that clients send and that mean the same here. They are replaced in the parsed document before it is
//! validated.

use async_graphql::Name;
use async_graphql::parser::types::{
    BaseType, DocumentOperations, ExecutableDocument, OperationDefinition, Selection,
};
use async_graphql_value::Value as Literal;

/// A field's argument, the type name that some client gives its variable, and our type name.
const SENT_AND_OURS: [(&str, &str, &str, &str); 3] = [
    ("create_scaling_group", "props", "ScalingGroupInput", "CreateScalingGroupInput"),
    ("associate_scaling_group_with_user_group", "user_group", "String", "UUID"),
    ("disassociate_scaling_group_with_user_group", "user_group", "String", "UUID"),
];

/// Replaces the clients' type names in a document with ours.
pub(crate) fn translate(document: &mut ExecutableDocument) {
    match &mut document.operations {
        DocumentOperations::Single(operation) => rename(&mut operation.node),
        DocumentOperations::Multiple(operations) => {
            for operation in operations.values_mut() {
                rename(&mut operation.node);
            }
        }
    }
}

fn rename(operation: &mut OperationDefinition) {
    for selection in &operation.selection_set.node.items {
        let Selection::Field(field) = &selection.node else { continue };
        for (name, argument, sent, ours) in SENT_AND_OURS {
            if field.node.name.node != name {
                continue;
            }
            let value = field.node.get_argument(argument).map(|value| &value.node);
            let Some(Literal::Variable(variable)) = value else { continue };
            let definitions =
                operation.variable_definitions.iter_mut().map(|definition| &mut definition.node);
            for definition in definitions.filter(|definition| definition.name.node == *variable) {
                let base = &mut definition.var_type.node.base;
                if *base == BaseType::Named(Name::new(sent)) {
                    *base = BaseType::Named(Name::new(ours));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::{DocumentOperations, translate};

    fn types(document: &str) -> Vec<String> {
        let mut document = parse_query(document).unwrap();
        translate(&mut document);
        let DocumentOperations::Single(operation) = document.operations else { panic!("one operation") };
        let types = operation.node.variable_definitions.iter();
        types.map(|definition| definition.node.var_type.node.to_string()).collect()
    }

    #[test]
    fn only_the_type_of_the_arguments_own_variable_is_replaced() {
        let create = "mutation($n: String!, $i: ScalingGroupInput!) { create_scaling_group(name: $n, props: $i) { ok } }";
        assert_eq!(types(create), ["String!", "CreateScalingGroupInput!"]);
        let ours = create.replace("ScalingGroupInput", "CreateScalingGroupInput");
        assert_eq!(types(&ours), ["String!", "CreateScalingGroupInput!"]);
        let associate = "mutation($s: String!, $g: String!) {
            x: disassociate_scaling_group_with_user_group(scaling_group: $s, user_group: $g) { ok } }";
        assert_eq!(types(associate), ["String!", "UUID!"]);
        let other =
            "mutation($n: ScalingGroupInput!) { create_scaling_group(name: \"$n\", props: {a: $n}) { ok } }";
        assert_eq!(types(other), ["ScalingGroupInput!"]);
    }
}
