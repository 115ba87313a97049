export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url); // "/Ada"
    const name: string = decodeURIComponent(pathname.slice(1)) || "world";
    return new Response(`Hello, ${name}, from TypeScript!\n`);
  },
};
