// Imports a package from the folder this file is copied to. Node resolves bare module names from the importing
// file, and the drivers live in the checkout while the packages do not, so they ask this file.
export const load = (name) => import(name);
