// The routes that every router serves, and their responses.
const routes = JSON.parse(require("fs").readFileSync(process.env.ROUTES, "utf8"));
const port = Number(process.env.PORT);

// A template in a router's syntax: `how` translates each kind of segment.
function written(path, how) {
  return path.replace(/\{(\w+)(\+?)\}|:/g, (piece, name, rest) =>
    name === undefined ? how.colon : rest ? how.rest(name) : how.parameter(name));
}

// For a router without templates such as `{id}:verb`: routes of one shape share a handler, which
// compares the end of the parameter, as applications on these routers do.
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
