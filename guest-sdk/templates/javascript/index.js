export default {
  async fetch(request) {
    const { pathname } = new URL(request.url); // "/Ada"
    const name = decodeURIComponent(pathname.slice(1)) || "world";
    return new Response(`Hello, ${name}, from JavaScript!\n`);
  },
};
