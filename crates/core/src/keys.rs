//! Keys of what the core holds. Each kind is a type of its own, and each names one incarnation: a key of
//! something that is gone names nothing else.

slotmap::new_key_type! {
    /// Names one object.
    pub struct JobKey;
    /// Names one namespace while it has objects.
    pub struct NamespaceKey;
    /// Names one credential reference while objects use it.
    pub struct SecretKey;
    /// Names one quota group while objects are in it.
    pub struct GroupKey;
    /// Names one quota bucket.
    pub struct BucketKey;
    /// Names one pool of quota buckets.
    pub struct PoolKey;
    /// Names one host while objects wait after a failure there.
    pub struct HostKey;
}
