/** Imports every package named in the arguments and wants something exported by each; runs in a project that holds only the tarballs. */
for (const name of process.argv.slice(2)) {
  const exported = Object.keys(await import(name));
  if (exported.length === 0) throw new Error(`${name} exports nothing`);
}
