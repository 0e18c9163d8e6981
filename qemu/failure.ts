/** What keeps a machine from running, in one line for the user. Caught where the library is entered. */
export class MachineFailure extends Error {}

/** A connection to the machine is gone: mostly because the machine is, and that is then what to tell. */
export class ConnectionLost extends MachineFailure {}
