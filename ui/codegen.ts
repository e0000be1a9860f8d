import type { CodegenConfig } from "@graphql-codegen/cli";

// Each operation beside its page is checked against the schema the server has, and becomes a typed string.
const config: CodegenConfig = {
  schema: "../src/graphql/schema.graphql",
  documents: "src/**/*.graphql",
  ignoreNoDocuments: false,
  generates: {
    "src/api/operations.ts": {
      plugins: ["typescript", "typescript-operations", "typed-document-node"],
      config: {
        documentMode: "string",
        useTypeImports: true,
        onlyOperationTypes: true,
        skipTypename: true,
        enumsAsTypes: true,
        maybeValue: "T | null",
        avoidOptionals: { field: true },
        scalars: { BigInt: "number", UUID: "string", JSONString: "string", DateTime: "string", ScopeField: "string" },
        strictScalars: false,
      },
    },
  },
};

export default config;
