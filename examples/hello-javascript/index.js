// A small web service: the Request and Response of browsers, nothing else.

const text = (body, status = 200) =>
  new Response(body, { status, headers: { "content-type": "text/plain; charset=utf-8" } });

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const hello = (request, env, name = "world") =>
  text(`${env.GREETING ?? "Hello"}, ${name}, from JavaScript!\n`);

/** Answers JSON with what it was sent, and what that is. */
async function echo(request) {
  try {
    const received = await request.json();
    return Response.json({ received, type: Array.isArray(received) ? "array" : typeof received });
  } catch (error) {
    return text(`that is not JSON: ${error.message}\n`, 400);
  }
}

/** Streams a line every 200 ms; each is on its way at once. */
function count() {
  const encoder = new TextEncoder();
  const lines = new ReadableStream({
    async start(controller) {
      for (let number = 1; number <= 5; number++) {
        controller.enqueue(encoder.encode(`${number}\n`));
        await sleep(200);
      }
      controller.close();
    },
  });
  return text(lines);
}

const routes = [
  ["GET", /^\/$/, hello],
  ["GET", /^\/hello\/([^/]+)$/, hello],
  ["POST", /^\/$/, echo],
  ["GET", /^\/count$/, count],
];

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    for (const [method, pattern, handle] of routes) {
      const match = pathname.match(pattern);
      if (match && method === request.method) {
        return handle(request, env, ...match.slice(1).map(decodeURIComponent));
      }
    }
    return text(`nothing at ${pathname}\n`, 404);
  },
};
