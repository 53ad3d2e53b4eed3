import { describe, expect, it } from 'vitest';
import { BUNDLE_NAME, bundleName, formatManifest, type Manifest, parseManifest } from './manifest.js';

const MANIFEST: Manifest = {
  version: '1.2.3-rc.1',
  arch: 'arm64',
  node: 'v22.1.0',
  files: [
    { path: 'bin/node', sha256: 'a'.repeat(64), sizeBytes: 12, executable: true },
    { path: 'app/node_modules/@x/y.js', sha256: 'b'.repeat(64), sizeBytes: 0, executable: false },
  ],
};

describe('the list of contents', () => {
  it('is read as it was written', () => {
    const { manifest, seal } = parseManifest(formatManifest(MANIFEST));
    expect(manifest).toEqual(MANIFEST);
    expect(bundleName(manifest.version, seal)).toMatch(BUNDLE_NAME);
  });

  it('is refused with any one byte changed', () => {
    const text = formatManifest(MANIFEST);
    for (let at = 0; at < text.length; at++) {
      const changed = text.slice(0, at) + String.fromCharCode(text.charCodeAt(at) ^ 1) + text.slice(at + 1);
      expect(() => parseManifest(changed), `byte ${at}`).toThrow(expect.objectContaining({ code: 'BUNDLE_DAMAGED' }));
    }
  });

  it.each(['../x', '/x', 'a/../b', './a', 'a b', '', 'MANIFEST', 'a\nb'])('takes no file called %j', (path) => {
    const files = [{ path, sha256: 'a'.repeat(64), sizeBytes: 1, executable: false }];
    expect(() => formatManifest({ ...MANIFEST, files })).toThrow(expect.objectContaining({ code: 'BUNDLE_FAILED' }));
  });

  it('names two builds of one version differently', () => {
    const other = { ...MANIFEST, files: MANIFEST.files.slice(0, 1) };
    const names = [MANIFEST, other].map((manifest) => bundleName('1.2.3', parseManifest(formatManifest(manifest)).seal));
    expect(names[0]).not.toBe(names[1]);
  });
});
