/** A broker's URL for logs, messages and other eyes: without the password. Text that is no URL stays as it is. */
export function publicUrl(url: string): string {
  return url.replace(/^([a-z]+:\/\/[^/@\s]*?:)[^@\s]*@/, '$1***@');
}
