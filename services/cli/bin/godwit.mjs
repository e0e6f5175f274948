#!/usr/bin/env node
// The `godwit` of `npx godwit` in a clone.
import "../../../scripts/godwit.mjs";
