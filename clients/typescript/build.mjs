// Builds what the package contains: dist/esm for `import`, dist/cjs for `require`, and the license.

import { execFileSync } from "node:child_process";
import { copyFileSync, rmSync, writeFileSync } from "node:fs";

const compiler = "node_modules/typescript/bin/tsc";

rmSync("dist", { recursive: true, force: true });
for (const kind of ["esm", "cjs"]) {
  execFileSync(process.execPath, [compiler, "--project", `tsconfig.${kind}.json`], {
    stdio: "inherit",
  });
}
// package.json says "module" for all files; these are the exception.
writeFileSync("dist/cjs/package.json", '{ "type": "commonjs" }\n');
copyFileSync("../../LICENSE", "LICENSE");
