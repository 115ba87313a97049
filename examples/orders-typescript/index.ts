// A JSON API with Hono, unmodified: routes, validation, errors as JSON.

import { Hono } from "hono";
import { validator } from "hono/validator";

type Item = { sku: string; quantity: number };
type Order = { customer: string; items: Item[] };

const PRICES: Record<string, number> = { tea: 450, coffee: 620, cake: 380 };

/** An order, or what is wrong with it: every mistake at once. */
function readOrder(value: unknown): Order | string[] {
  const mistakes: string[] = [];
  const order = (value ?? {}) as Partial<Order>;
  if (typeof order.customer !== "string" || order.customer.trim() === "") {
    mistakes.push("customer: a name is needed");
  }
  if (!Array.isArray(order.items) || order.items.length === 0) {
    mistakes.push("items: at least one is needed");
  } else {
    order.items.forEach((item, index) => {
      if (!(item?.sku in PRICES)) {
        mistakes.push(`items[${index}].sku: one of ${Object.keys(PRICES).join(", ")}`);
      }
      if (!Number.isInteger(item?.quantity) || item.quantity < 1) {
        mistakes.push(`items[${index}].quantity: a whole number from 1`);
      }
    });
  }
  return mistakes.length > 0 ? mistakes : (order as Order);
}

const app = new Hono();

app.get("/prices/:sku", (c) => {
  const sku = c.req.param("sku");
  return sku in PRICES ? c.json({ sku, cents: PRICES[sku] }) : c.json({ error: `there is no ${sku}` }, 404);
});

app.post(
  "/orders",
  validator("json", (value, c) => {
    const order = readOrder(value);
    return Array.isArray(order) ? c.json({ mistakes: order }, 422) : order;
  }),
  (c) => {
    const { customer, items } = c.req.valid("json");
    const cents = items.reduce((sum, { sku, quantity }) => sum + PRICES[sku] * quantity, 0);
    return c.json({ customer, cents }, 201);
  },
);

app.notFound((c) => c.json({ error: `nothing at ${c.req.path}` }, 404));

export default app;
