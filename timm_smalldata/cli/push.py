"""The verb push: send a finished run to the Hugging Face hub."""
import argparse
from typing import List, Optional

from ..hub.parcel import README, pack
from ..hub.push import check_repo_id, push_model
from ..utils.command import typed
from ..utils.console import print_safely


def main(argv: Optional[List[str]] = None) -> None:
    """Push a finished run: `timm-smalldata push RUN owner/name`."""
    parser = argparse.ArgumentParser(
        prog=typed('push'),
        description='Send a trained model, its card and a picture of its recall to the Hugging Face hub, in one '
                    'commit. Every file is listed first, and searched for what only this machine knows.',
        allow_abbrev=False)
    parser.add_argument('folder', metavar='RUN', help='run folder, or the model/ folder in it')
    parser.add_argument('repo_id', metavar='OWNER/NAME', help='repository on the hub, made if it does not exist')
    parser.add_argument('--public', action='store_true', help='publish it; by default the repository is private')
    parser.add_argument('--license', metavar='NAME',
                        help='licence of the model, as the hub names it: mit, cc-by-nc-4.0 (default: none, which the '
                             'card says)')
    parser.add_argument('--data-name', metavar='NAME', help='name of the images, for the card (default: none is told)')
    parser.add_argument('--replace-card', action='store_true', help='overwrite a README.md that is there already')
    parser.add_argument('--allow', nargs='+', default=[], metavar='WORD', help='private words that may be sent')
    parser.add_argument('--dry-run', action='store_true', help='print what would be sent, and send nothing')
    args = parser.parse_args(argv)
    if args.dry_run:
        check_repo_id(args.repo_id)
        parcel = pack(args.folder, args.repo_id, args.license, args.data_name, args.allow)
        print_safely('\n'.join(['Would send ' + parcel.listing(not args.public)[0], *parcel.listing(False)[1:], '',
                                parcel.files[README].decode('utf-8')]))
        return
    url = push_model(
        args.folder, args.repo_id, private=not args.public, license=args.license, data_name=args.data_name,
        replace_card=args.replace_card, allow=args.allow)
    print(f'Pushed to {url}. Load it with: timm.create_model({"hf-hub:" + args.repo_id!r}, pretrained=True)')
