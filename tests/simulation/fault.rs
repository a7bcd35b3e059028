//! What happens to a simulated job.
//!
//! Invariant: a fault strikes at a moment that the seed picks; what it needs of chance it takes from the seed too.

use super::world::World;
use std::time::Duration;
use waterwheel::engine::testing::{BrokerFault, DiskFault, SimMachine, StoreFault};

/// Which faults a run may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// None.
    Quiet,
    /// All.
    All,
    /// Deaths of processes and machines, stops, other numbers of tasks.
    Process,
    /// The disk, and the store where checkpoints are.
    Disk,
    /// The broker.
    Broker,
    /// Processes that wake up and are not needed any more.
    Zombie,
    /// Savepoints and starts from them.
    Savepoint,
}

impl Scenario {
    /// All of them.
    pub(crate) const ALL: [Scenario; 7] =
        [Scenario::All, Scenario::Quiet, Scenario::Process, Scenario::Disk, Scenario::Broker, Scenario::Zombie, Scenario::Savepoint];

    /// For the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::Quiet => "quiet",
            Scenario::All => "all",
            Scenario::Process => "process",
            Scenario::Disk => "disk",
            Scenario::Broker => "broker",
            Scenario::Zombie => "zombie",
            Scenario::Savepoint => "savepoint",
        }
    }
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process is killed between two steps.
    Kill,
    /// The machine loses power between two steps.
    PowerCut,
    /// The process dies at some call into the outside.
    DieInCall,
    /// The process is killed, and its successors die while they recover.
    DieInRecovery,
    /// A graceful stop.
    Stop,
    /// A call of the disk goes wrong, or several.
    Disk,
    /// The disk is full for a while.
    FullDisk,
    /// A call of the store where checkpoints are goes wrong, or several. Where that is a folder, it is the disk's.
    Store,
    /// That store is away for a while.
    StoreAway,
    /// A lane of background work does nothing for a while.
    Stall,
    /// The wall clock jumps.
    WallJump,
    /// A request to the broker goes wrong, or several.
    Broker,
    /// The broker is away for a while.
    BrokerAway,
    /// The process is killed, and when it starts again every marker is forgotten.
    MarkersExpire,
    /// A paused process wakes up after another one took over.
    Zombie,
    /// A savepoint, and a start from it.
    Savepoint,
}

use Fault::*;

const PROCESS: &[Fault] = &[Kill, PowerCut, DieInCall, DieInCall, DieInRecovery, Stop, WallJump];
const DISK: &[Fault] = &[Disk, Disk, Store, Store, FullDisk, StoreAway, Stall, PowerCut];
const BROKER: &[Fault] = &[Broker, Broker, Broker, BrokerAway, MarkersExpire, DieInCall, Stall];
const ZOMBIE: &[Fault] = &[Zombie, Zombie, DieInCall, Broker];
const SAVEPOINT: &[Fault] = &[Savepoint, Savepoint, DieInCall, Kill];
const ALL: &[Fault] = &[
    Kill,
    PowerCut,
    DieInCall,
    DieInCall,
    DieInRecovery,
    Stop,
    Disk,
    Disk,
    Store,
    Store,
    FullDisk,
    StoreAway,
    Stall,
    WallJump,
    Broker,
    Broker,
    Broker,
    BrokerAway,
    MarkersExpire,
    Zombie,
    Zombie,
    Savepoint,
];

impl Fault {
    /// One that the scenario has.
    pub(crate) fn draw(scenario: Scenario, machine: &SimMachine) -> Fault {
        let of: &[Fault] = match scenario {
            Scenario::Quiet => &[WallJump],
            Scenario::All => ALL,
            Scenario::Process => PROCESS,
            Scenario::Disk => DISK,
            Scenario::Broker => BROKER,
            Scenario::Zombie => ZOMBIE,
            Scenario::Savepoint => SAVEPOINT,
        };
        of[machine.choose(of.len())]
    }

    /// A number of its own.
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Happens.
    pub(super) fn strike(self, world: &mut World) -> Result<(), String> {
        let machine = world.machine.clone();
        let pick = |n: usize| machine.choose(n);
        match self {
            Kill => {
                machine.note("killed");
                world.job.kill();
            }
            PowerCut => {
                machine.note("power cut");
                world.job.crash();
            }
            DieInCall => machine.die_in(1 + pick(400) as u64),
            DieInRecovery => {
                machine.note("killed");
                world.job.kill();
                for _ in 0..1 + pick(3) {
                    machine.die_in(1 + pick(120) as u64);
                    world.ensure_running()?;
                }
            }
            Stop => {
                machine.note("stopped");
                world.job.stop();
                world.advance_by_chance(3_000)?;
            }
            Store if world.is_remote() => {
                for _ in 0..1 + pick(3) {
                    world.objects.arm(pick(60) as u64, StoreFault::ALL[pick(StoreFault::ALL.len())]);
                }
            }
            Disk | Store => {
                for _ in 0..1 + pick(3) {
                    machine.arm(pick(200) as u64, DiskFault::ALL[pick(DiskFault::ALL.len())]);
                }
            }
            StoreAway if world.is_remote() => world.objects.away_until(machine.now() + Duration::from_millis(1 + pick(500) as u64)),
            FullDisk | StoreAway => machine.disk_full_for(Duration::from_millis(1 + pick(60) as u64)),
            Stall => {
                machine.note("stalled lane");
                machine.stall_a_lane(Duration::from_millis(1 + pick(4_000) as u64));
            }
            WallJump => {
                machine.note("wall clock jump");
                machine.jump_wall(pick(7_200_000) as i64 - 3_600_000);
            }
            Broker => {
                for _ in 0..1 + pick(3) {
                    world.broker.arm(pick(40) as u64, BrokerFault::ALL[pick(BrokerFault::ALL.len())]);
                }
            }
            BrokerAway => world.broker.away_until(machine.now() + Duration::from_millis(1 + pick(500) as u64)),
            MarkersExpire => {
                machine.note("markers expired");
                world.job.kill();
                world.broker.expire_markers();
            }
            Zombie => world.zombie()?,
            Savepoint => world.savepoint()?,
        }
        Ok(())
    }
}
