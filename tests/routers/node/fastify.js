// Fastify with its defaults, or `blind`: it ignores case, duplicate slashes and text after a `;`.
const { port, written, shared, chosen } = require("./routes.js");
const blind = process.argv[2] === "blind";

const how = { parameter: (name) => `:${name}`, rest: () => "*", colon: "::" };
const app = require("fastify")({
  routerOptions: {
    caseSensitive: !blind, ignoreTrailingSlash: blind, ignoreDuplicateSlashes: blind, useSemicolonDelimiter: blind,
  },
});
for (const shape of shared()) {
  app.route({
    method: shape.method, url: written(shape.path, how),
    handler: (call, reply) => {
      const route = chosen(shape, call.params);
      if (!route) return reply.callNotFound();
      reply.headers({ "x-handler": route.scope, "x-path": call.originalUrl.split("?")[0] });
      return { handler: route.scope, params: call.params };
    },
  });
}
app.listen({ port, host: "127.0.0.1" });
