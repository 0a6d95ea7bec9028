//! What the page shows of each row.

/// A row of the benchmark as the page shows it.
pub struct Table {
    pub row: &'static str,
    pub title: &'static str,
    pub text: &'static str,
    pub columns: &'static [Column],
    /// What is plotted, and compared with the operator: the key of a column.
    pub main: &'static str,
}

pub struct Column {
    pub key: &'static str,
    pub heading: &'static str,
    pub decimals: usize,
}

const fn column(key: &'static str, heading: &'static str, decimals: usize) -> Column {
    Column {
        key,
        heading,
        decimals,
    }
}

const LAGS: &[Column] = &[
    column("known_p50", "known p50, s", 1),
    column("known_p99", "known p99, s", 1),
    column("shown_p50", "shown p50, s", 1),
    column("shown_p99", "shown p99, s", 1),
    column("polls_per_second", "polls/s", 0),
    column("cpu_share", "CPU", 2),
    column("server_cpu_share", "CPU of the API server", 2),
];

pub const TABLES: [Table; 10] = [
    Table {
        row: "polls",
        title: "CPU of polls without a change",
        text: "All jobs run. *Strewn* peers poll each object at an instant of its own, the others as it comes, which is \
               in bunches. The operator's instants follow from uids, in whole seconds.",
        columns: &[
            column("cpu_seconds_per_10000_polls", "CPU s per 10,000 polls", 3),
            column("context_switches_per_poll", "context switches a poll", 2),
            column("polls_per_second", "polls/s", 0),
            column("rss_mib", "RSS, MiB", 1),
        ],
        main: "cpu_seconds_per_10000_polls",
    },
    Table {
        row: "memory",
        title: "Memory",
        text: "Of objects with a running job, after a restart and once the process is at rest.",
        columns: &[
            column("anonymous_mib", "anonymous, MiB", 1),
            column("rss_mib", "RSS, MiB", 1),
            column("rss_max_mib", "most RSS, MiB", 1),
        ],
        main: "anonymous_mib",
    },
    Table {
        row: "first-status",
        title: "First status",
        text: "From the start of the process until each of many new objects has a status.",
        columns: &[
            column("seconds", "s", 1),
            column("cpu_seconds", "CPU s", 2),
            column("server_cpu_seconds", "CPU s of the API server", 1),
            column("status_writes_per_object", "status writes an object", 2),
            column("polls_per_object", "polls an object", 2),
            column("refused", "refused by the API server", 0),
            column("rss_max_mib", "most RSS, MiB", 1),
        ],
        main: "cpu_seconds",
    },
    Table {
        row: "restart",
        title: "Restart",
        text: "The first 30 s of a process that finds each object with the status of its running job. With a period of \
               600 s, a twentieth of the objects is due in that time.",
        columns: &[
            column("polls", "polls", 0),
            column("cpu_seconds", "CPU s", 2),
            column("server_cpu_seconds", "CPU s of the API server", 1),
            column("status_writes", "status writes", 0),
            column("other_writes", "other writes", 0),
        ],
        main: "polls",
    },
    Table {
        row: "writes",
        title: "Writes of a job",
        text: "A job that initialises, runs and succeeds shows three statuses.",
        columns: &[
            column("status_writes_per_job", "status writes a job", 2),
            column("other_writes_per_job", "other writes a job", 2),
            column("polls_per_job", "polls a job", 1),
        ],
        main: "status_writes_per_job",
    },
    Table {
        row: "lag",
        title: "Lag",
        text: "From a job's end until it was answered (known), and until a watch shows it (shown), at a fixed period of 10 s: \
               as many polls a second as of 10,000 objects at 30 s.",
        columns: LAGS,
        main: "shown_p99",
    },
    Table {
        row: "adaptive",
        title: "Lag of the adaptive mode",
        text: "Both modes of the operator at the same time, each with the same jobs, in equal numbers of three types, that \
               come and go for 5 min.",
        columns: &[
            column("polls_per_job", "polls for each end", 1),
            column("known_mean", "known on average, s", 1),
            column("known_p50", "known p50, s", 1),
            column("known_p99", "known p99, s", 1),
            column("ended", "ends", 0),
        ],
        main: "known_mean",
    },
    Table {
        row: "storm",
        title: "Lag in a storm",
        text: "All jobs end within 70 s, polled at a fixed period of 30 s.",
        columns: LAGS,
        main: "shown_p99",
    },
    Table {
        row: "quota",
        title: "A quota",
        text: "100 polls a second are wanted, 20 allowed; the others are answered with 429 and a Retry-After of 5 s. For 60 s.",
        columns: &[
            column("useful_per_second", "useful answers/s", 1),
            column("throttled", "throttled", 0),
            column("throttled_percent", "throttled, %", 1),
            column("before_retry_after", "polls before Retry-After", 0),
            column("status_writes", "status writes", 0),
        ],
        main: "useful_per_second",
    },
    Table {
        row: "saturation",
        title: "Most polls of one processor",
        text: "More polls are wanted than one processor can send. The operator wants fewer than its peers: it polls a late \
               object at its next instant. So compare the polls for each second of CPU.",
        columns: &[
            column("polls_per_second", "polls/s", 0),
            column("polls_per_cpu_second", "polls for each second of CPU", 0),
            column("cpu_share", "CPU", 2),
            column("cloud_share", "CPU of the cloud", 2),
        ],
        main: "polls_per_second",
    },
];
