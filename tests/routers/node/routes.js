// The routes that every router serves, and what each answers.
const routes = JSON.parse(require("fs").readFileSync(process.env.ROUTES, "utf8"));
const port = Number(process.env.PORT);

// A template as a router writes it: `how` has a word for each kind of piece.
function written(path, how) {
  return path.replace(/\{(\w+)(\+?)\}|:/g, (piece, name, rest) =>
    name === undefined ? how.colon : rest ? how.rest(name) : how.parameter(name));
}

// For a router that has no template like `{id}:verb`: routes of one shape share a handler, which
// looks at how the parameter ends, as their users do.
function shared(all = routes) {
  const shapes = new Map();
  for (const route of all) {
    const [, path, verb] = /^(.*\})(:\w+)?$/.exec(route.path) ?? [null, route.path];
    const key = `${route.method} ${path}`;
    if (!shapes.has(key)) shapes.set(key, { method: route.method, path, choices: [] });
    shapes.get(key).choices.push({ verb, route, name: /\{(\w+)\+?\}$/.exec(path)?.[1] });
  }
  return [...shapes.values()];
}

function chosen({ choices }, params) {
  return choices.find(({ verb, name }) => !verb || params[name]?.endsWith(verb))?.route;
}

module.exports = { routes, port, written, shared, chosen };
