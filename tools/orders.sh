#!/usr/bin/env bash
# Starts the order service of the sample, and sends it three orders. `make run` has `jetmesh dev` run this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

service=http://127.0.0.1:8080
if (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null; then
    echo "port 8080 is in use, so the order service does not start: end what listens on it" >&2
    exit 1
fi

# Sent again at each start; the key makes it the same order.
order() {
    curl --silent --retry 30 --retry-delay 1 --retry-connrefused "$service/orders" \
        -H 'Content-Type: application/json' -H "Idempotency-Key: sample-$1" -d "$2"
    echo
}

(
    order 1 '{"user_id":"u-7","locale":"en","lines":[{"sku":"sku-1","qty":2,"price_cents":1250}]}'
    order 2 '{"user_id":"u-8","locale":"zh","lines":[{"sku":"sku-2","qty":1,"price_cents":900}]}'
    # There is not as much in stock.
    order 3 '{"user_id":"u-7","locale":"en","lines":[{"sku":"sku-3","qty":99}]}'
    echo "what the handlers make of an order: curl $service/orders/o-3"
) &

# NATS_URL is set.
export DATABASE_URL=sqlite:.jetmesh/orders.db
exec host/examples/order-service/target/debug/order-service
