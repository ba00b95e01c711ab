//! What the company owes and is owed. In memory, the same after every start, and bounded however long it runs.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The oldest invoice leaves when one more is created.
const INVOICES_MAX: usize = 2_000;
const FIRST: u32 = 1_001;
const CUSTOMERS: [&str; 12] = [
    "Blue Kettle",
    "Northwind Ferries",
    "Orchard & Sons",
    "Half Moon Bakery",
    "Cobalt Instruments",
    "Third Street Cinema",
    "Juniper Clinic",
    "Old Harbour Books",
    "Pine Hill School",
    "Quarry Road Garage",
    "Silver Birch Hotel",
    "Tidewater Marine",
];

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, rmcp::schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(crate = "rmcp::schemars")]
pub(crate) enum Status {
    Open,
    Overdue,
    Paid,
    Refunded,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Invoice {
    pub(crate) id: String,
    pub(crate) customer: String,
    pub(crate) amount_cents: u64,
    pub(crate) currency: &'static str,
    pub(crate) issued: String,
    pub(crate) status: Status,
}

#[derive(Debug)]
pub(crate) struct Books {
    invoices: VecDeque<Invoice>,
    next: u32,
    lookups: u64,
    approvals: u64,
}

impl Default for Books {
    fn default() -> Self {
        let mut books = Self {
            invoices: VecDeque::new(),
            next: FIRST,
            lookups: 0,
            approvals: 0,
        };
        for number in 0..120_u32 {
            let customer = CUSTOMERS[number as usize % CUSTOMERS.len()];
            // Any spread of amounts, days and states will do, as long as it is the same every time.
            books.create(customer, 900 + u64::from(number * 7_919 % 48_000));
            let status = [Status::Paid, Status::Paid, Status::Open, Status::Overdue, Status::Paid][number as usize % 5];
            if let Some(last) = books.invoices.back_mut() {
                last.issued = format!("2026-{:02}-{:02}", 7 + number / 30, 1 + number % 28);
                last.status = status;
            }
        }
        books
    }
}

impl Books {
    pub(crate) fn list(&self, status: Option<Status>, limit: usize) -> Vec<&Invoice> {
        self.invoices
            .iter()
            .rev()
            .filter(|each| status.is_none_or(|wanted| each.status == wanted))
            .take(limit)
            .collect()
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Invoice> {
        self.invoices.iter().find(|each| each.id == id)
    }

    pub(crate) fn create(&mut self, customer: &str, amount_cents: u64) -> Invoice {
        if self.invoices.len() == INVOICES_MAX {
            self.invoices.pop_front();
        }
        let invoice = Invoice {
            id: format!("INV-{}", self.next),
            customer: customer.to_owned(),
            amount_cents,
            currency: "EUR",
            issued: "2026-11-02".to_owned(),
            status: Status::Open,
        };
        self.next += 1;
        self.invoices.push_back(invoice.clone());
        invoice
    }

    /// Refunds an invoice. To refund one twice changes nothing more.
    pub(crate) fn refund(&mut self, id: &str) -> Option<Invoice> {
        let invoice = self.invoices.iter_mut().find(|each| each.id == id)?;
        invoice.status = Status::Refunded;
        Some(invoice.clone())
    }

    /// Looks a customer up in a directory that times out every third time.
    pub(crate) fn look_up(&mut self, customer: &str) -> Result<usize, Timeout> {
        self.lookups += 1;
        if self.lookups.is_multiple_of(3) {
            return Err(Timeout);
        }
        Ok(self.invoices.iter().filter(|each| each.customer == customer).count())
    }

    /// A number for the next approval, so that no two of them look alike to whoever follows the conversation.
    pub(crate) fn next_approval(&mut self) -> u64 {
        self.approvals += 1;
        self.approvals
    }

    /// A month as comma-separated lines.
    pub(crate) fn report(&self, month: &str) -> String {
        let mut report = String::from("id,customer,amount_cents,currency,issued,status\n");
        for each in self.invoices.iter().filter(|each| each.issued.starts_with(month)) {
            let status = format!("{:?}", each.status).to_lowercase();
            let line = [
                &each.id,
                &each.customer,
                &each.amount_cents.to_string(),
                each.currency,
                &each.issued,
                &status,
            ];
            report.push_str(&line.join(","));
            report.push('\n');
        }
        report
    }

    pub(crate) fn customers() -> &'static [&'static str] {
        &CUSTOMERS
    }
}

#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Timeout;

#[cfg(test)]
mod tests {
    use super::{Books, INVOICES_MAX, Status, Timeout};

    #[test]
    fn the_first_invoices_are_always_the_same() {
        let books = Books::default();
        let first = books.find("INV-1001").expect("an invoice of every start");
        assert_eq!((first.customer.as_str(), first.amount_cents), ("Blue Kettle", 900));
        assert_eq!(books.find("INV-9999"), None);
        assert!(
            books
                .list(Some(Status::Overdue), 5)
                .iter()
                .all(|each| each.status == Status::Overdue)
        );
        assert!(books.report("2026-10").lines().count() > 20);
    }

    #[test]
    fn the_books_stay_bounded() {
        let mut books = Books::default();
        for _ in 0..2 * INVOICES_MAX {
            books.create("Blue Kettle", 1);
        }
        assert_eq!(books.list(None, usize::MAX).len(), INVOICES_MAX);
    }

    #[test]
    fn every_third_lookup_times_out() {
        let mut books = Books::default();
        let seen: Vec<_> = (0..6).map(|_| books.look_up("Blue Kettle")).collect();
        assert_eq!(seen, [Ok(10), Ok(10), Err(Timeout), Ok(10), Ok(10), Err(Timeout)]);
    }

    #[test]
    fn a_refund_may_be_repeated() {
        let mut books = Books::default();
        let once = books.refund("INV-1002");
        assert_eq!(once.as_ref().map(|each| each.status), Some(Status::Refunded));
        assert_eq!(books.refund("INV-1002"), once);
        assert_eq!(books.refund("INV-9999"), None);
    }
}
