import { describe, expect, it } from 'vitest';
import { cmdlineArguments, editCmdline } from './cmdline.js';

describe("the kernel's command line", () => {
  it('keeps what is there, in its order, on one line', () => {
    const text = 'console=tty1 root=PARTUUID=4d-02 dyndbg="file drivers/usb/* +p" rootwait resize\n';
    expect(editCmdline(text, { add: ['cgroup_memory=1'] })).toBe(
      'console=tty1 root=PARTUUID=4d-02 dyndbg="file drivers/usb/* +p" rootwait resize cgroup_memory=1\n',
    );
  });

  it('sets an argument once, however often it is edited', () => {
    const edit = { set: { ds: 'nocloud;i=a' }, add: ['cgroup_enable=memory'] };
    const once = editCmdline('root=/dev/mmcblk0p2 ds=nocloud;i=old\n', edit);
    expect(once).toBe('root=/dev/mmcblk0p2 ds=nocloud;i=a cgroup_enable=memory\n');
    expect(editCmdline(once, edit)).toBe(once);
  });

  it('lets arguments stand that may be given more than once', () => {
    expect(editCmdline('cgroup_enable=cpuset a', { add: ['cgroup_enable=memory'] })).toBe('cgroup_enable=cpuset a cgroup_enable=memory\n');
  });

  it('takes out what contradicts', () => {
    expect(editCmdline('a cgroup_disable=memory b', { remove: ['cgroup_disable=memory'] })).toBe('a b\n');
  });

  it('reads the first line only, with any line end, as the firmware does', () => {
    expect(cmdlineArguments('\uFEFFa  b\tc\r\nd e\r\n')).toEqual(['a', 'b', 'c']);
    expect(cmdlineArguments('')).toEqual([]);
  });
});
