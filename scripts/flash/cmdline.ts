/** The kernel's command line in `cmdline.txt`: one line of arguments; what we set is set once, the rest stays as and where it was. */

export interface CmdlineEdit {
  /** `key=value`: replaces the argument of this key, or is appended. */
  readonly set?: Readonly<Record<string, string>>;
  /** Whole arguments, appended when they are not there: for keys that may stand more than once. */
  readonly add?: readonly string[];
  readonly remove?: readonly string[];
}

/** Arguments in their order; a quoted part may hold spaces. Only the first line counts, as for the firmware. */
export function cmdlineArguments(text: string): string[] {
  const [line = ''] = text
    .replace(/^\uFEFF/, '')
    .trimStart()
    .split(/\r?\n/);
  return line.match(/(?:[^\s"]|"[^"]*")+/g) ?? [];
}

export function editCmdline(text: string, edit: CmdlineEdit): string {
  const args = cmdlineArguments(text).filter((arg) => edit.remove?.includes(arg) !== true);
  for (const [key, value] of Object.entries(edit.set ?? {})) {
    const at = args.findIndex((arg) => arg === key || arg.startsWith(`${key}=`));
    if (at < 0) args.push(`${key}=${value}`);
    else args[at] = `${key}=${value}`;
  }
  for (const arg of edit.add ?? []) if (!args.includes(arg)) args.push(arg);
  return `${args.join(' ')}\n`;
}
