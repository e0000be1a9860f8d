//! Engines that never answered: they are no agents yet, and whoever named them wants to know.

use crate::access::caller::Caller;
use crate::base::Result;
use crate::fleet::service::Fleet;

impl Fleet {
    /// The addresses of the engines that have not answered since the server started, each with the reason. For
    /// super-admins.
    pub(crate) fn unreached(&self, caller: &Caller) -> Result<Vec<(String, String)>> {
        caller.require_superadmin("server_health")?;
        let unreached = self.unreached.lock();
        Ok(unreached.iter().map(|(address, reason)| (address.clone(), reason.clone())).collect())
    }

    /// Nothing has answered at this address.
    pub(in crate::fleet) fn miss(&self, address: &str, reason: &str) {
        self.unreached.lock().insert(address.into(), reason.into());
    }
}
