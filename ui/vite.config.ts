import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// Four stable names: the server carries these files, and answers for each with its ETag.
export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: "dist",
    target: "es2023",
    cssCodeSplit: false,
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rolldownOptions: {
      output: {
        entryFileNames: "app.js",
        assetFileNames: "app[extname]",
        codeSplitting: false,
      },
    },
  },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
