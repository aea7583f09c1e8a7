// operations/console/: The page on which people on call see how the service is, and deal with dead letters.
// Promises: what came from outside is shown as text; nothing is loaded from elsewhere, and no token leaves the tab.
// May know: nothing: the page asks the routes that everybody has.

import { Controller, Get, NotFoundException, Param, Res, StreamableFile } from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { ApiExcludeController } from '@nestjs/swagger';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ASSETS = path.join(path.dirname(fileURLToPath(import.meta.url)), 'assets');
const SCRIPT = 'text/javascript; charset=utf-8';
/** All that is served, so that no name from outside is one of a file. */
const TYPES: ReadonlyMap<string, string> = new Map([
  ['console.css', 'text/css; charset=utf-8'],
  ...['api', 'console', 'dom', 'letters', 'lists', 'overview', 'people'].map(
    (name) => [`${name}.js`, SCRIPT] as const,
  ),
]);

/** Its own scripts, styles and routes, and nothing else: no script or style within the page, and no page around it. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
  "frame-ancestors 'none'; require-trusted-types-for 'script'";

/** Serves the page at `/console`. It holds nothing by itself: what it shows it asks for with the token that is put into it. */
@Controller('console')
@ApiExcludeController()
export class ConsoleController {
  constructor(private readonly adapterHost: HttpAdapterHost) {}

  @Get()
  page(@Res({ passthrough: true }) response: unknown): Promise<StreamableFile> {
    return this.send(response, 'index.html', 'text/html; charset=utf-8');
  }

  @Get(':asset')
  asset(
    @Param('asset') asset: string,
    @Res({ passthrough: true }) response: unknown,
  ): Promise<StreamableFile> {
    const type = TYPES.get(asset);
    if (type === undefined) throw new NotFoundException(`Cannot GET /console/${asset}`);
    return this.send(response, asset, type);
  }

  private async send(response: unknown, name: string, type: string): Promise<StreamableFile> {
    const { httpAdapter } = this.adapterHost;
    httpAdapter.setHeader(response, 'Content-Security-Policy', POLICY);
    httpAdapter.setHeader(response, 'Referrer-Policy', 'no-referrer');
    return new StreamableFile(await readFile(path.join(ASSETS, name)), { type });
  }
}
