import { describe, expect, it } from 'vitest';
import { checkGateway, checkName, checkTimezone, checkUser, expandNames, makeWifi, parseSshKeys } from './card.js';

const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBx4Wp1PpH0Qm5b6kG5a0bq0nZ4s2yY1j0mQ3v5fYk8e me@laptop';
const wifi = (o: Partial<Parameters<typeof makeWifi>[0]>) =>
  makeWifi({ ssid: 'home', password: 'correct horse', country: 'DE', hidden: false, ...o });

describe('names', () => {
  it.each(['pi-1', 'PI1', 'a'])('takes %s', (name) => expect(checkName(name)).toBe(name));
  it.each(['', '-a', 'a-', 'a.b', 'a_b', 'ä', 'a b', 'x'.repeat(64), '$(reboot)'])('refuses %j: it becomes a host name', (name) =>
    expect(() => checkName(name)).toThrow(/USAGE|letters, digits and dashes/),
  );
  it('makes several of a pattern', () => {
    expect(expandNames('pi-%d', 3)).toEqual(['pi-1', 'pi-2', 'pi-3']);
    expect(expandNames('n%02dx', 2)).toEqual(['n01x', 'n02x']);
    expect(expandNames('pi-%d', 1)).toEqual(['pi-1']);
    expect(expandNames('pi', 1)).toEqual(['pi']);
  });
  it.each([
    ['pi', 2],
    ['%d-%d', 2],
  ])('refuses the pattern %s for %d', (pattern, count) => expect(() => expandNames(pattern, count)).toThrow('one %d'));
});

describe('a Wi-Fi network', () => {
  it('has the key that WPA makes of password and name (IEEE 802.11i, annex H.4)', () => {
    expect(wifi({ ssid: 'IEEE', password: 'password' }).key).toBe('f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e');
  });
  it('takes a key as it is', () => {
    expect(wifi({ password: 'AB'.repeat(32) }).key).toBe('ab'.repeat(32));
  });
  it.each(['short', 'x'.repeat(64), 'passwört1'])('refuses the password %j without repeating it', (password) => {
    expect(() => wifi({ password })).toThrow(/8 to 63 printable/);
    expect(() => wifi({ password })).not.toThrow(password);
  });
  it.each(['', 'x'.repeat(33), 'a\nb', 'ü'.repeat(17)])('refuses the name %j', (ssid) =>
    expect(() => wifi({ ssid })).toThrow('1 to 32 bytes'),
  );
  it.each(['', 'de', 'DEU', 'D1'])('refuses the country %j', (country) => expect(() => wifi({ country })).toThrow('two letters'));
});

describe('who may log in', () => {
  it('reads public keys, past comments and empty lines', () => {
    expect(parseSshKeys(`# mine\n\n${KEY}\r\n`, 'id.pub')).toEqual([KEY]);
  });
  it('never takes a private key', () => {
    expect(() => parseSshKeys('-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n', 'id')).toThrow('ends in .pub');
  });
  it.each(['', 'hello', `command="x" ${KEY}`])('refuses %j', (text) => expect(() => parseSshKeys(text, 'id.pub')).toThrow('public keys'));
  it.each(['root', 'Pi', "x'; reboot", ''])('refuses the user %j', (user) => expect(() => checkUser(user)).toThrow('--user'));
});

describe('where things are', () => {
  it.each(['gw', 'gw.local', '192.168.1.10', 'fd00::1'])('takes the gateway %s', (host) => expect(checkGateway(host)).toBe(host));
  it.each(['mqtt://gw', 'gw:1883', 'a b', '$(x)', '-o'])('refuses the gateway %j', (host) =>
    expect(() => checkGateway(host)).toThrow('--gateway'),
  );
  it('takes time zones, and nothing that leaves their folder', () => {
    expect(checkTimezone('America/Argentina/Buenos_Aires')).toBe('America/Argentina/Buenos_Aires');
    expect(() => checkTimezone('../etc/passwd')).toThrow('--timezone');
  });
});
