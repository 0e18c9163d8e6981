/** What keeps a machine from running, in one line for the user. Caught where the library is entered. */
export class MachineFailure extends Error {}
