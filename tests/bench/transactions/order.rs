//! The orders, made from their number alone, so that the audit knows what each of them wanted.

/// The size of an order.
pub const BYTES: usize = 300;
/// How many users there are.
pub const USERS: u64 = 10_000;

/// What an order wants of the stock, and whose it is. An order's number is its sequence in the stream, less one.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub number: u64,
    pub sku: u64,
    pub quantity: u64,
    pub user: u64,
}

impl Order {
    /// `keys`: how many skus there are.
    pub fn new(number: u64, keys: u64) -> Order {
        let chance = scatter(number);
        Order {
            number,
            sku: chance % keys,
            quantity: 1 + (chance >> 20) % 3,
            user: (chance >> 32) % USERS,
        }
    }

    /// As JSON, of one line.
    pub fn text(self) -> Vec<u8> {
        let Order {
            number,
            sku,
            quantity,
            user,
        } = self;
        let sku = sku_name(sku);
        let mut text = format!(
            concat!(
                r#"{{"order_id":"o-{:010}","user_id":"u-{:05}","currency":"EUR","total_cents":4750,"#,
                r#""created_at":"2026-01-31T12:34:56.789Z","locale":"en-GB","#,
                r#""lines":[{{"sku":"{}","qty":{},"price_cents":1250}}],"note":""#
            ),
            number, user, sku, quantity
        );
        while text.len() < BYTES - 2 {
            text.push('x');
        }
        text.push_str("\"}");
        assert_eq!(text.len(), BYTES);
        text.into_bytes()
    }
}

pub fn sku_name(sku: u64) -> String {
    format!("sku-{sku:05}")
}

/// Spreads numbers evenly and always in the same way (the finisher of SplitMix64).
fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
